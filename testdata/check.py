#!/usr/bin/env python3
"""Checks the vectors from the text of specs/ alone, with none of Rootcast's code.

    python3 -m venv venv && venv/bin/pip install -r testdata/requirements.txt
    venv/bin/python testdata/check.py

Verifies what must be accepted, refuses what must be refused, and then flips one
byte at a time of every signed file and edit. Exits 0 only if all is as expected.
Signatures are verified by pycose; the profile around them is checked here.
"""

import json
import pathlib
import sys

sys.dont_write_bytecode = True  # The directory is under version control.

import blake3
from documents import Head, Release, Trust, check_leaf, check_record, judge, leaf_hash
from edits import apply_edit
from formats import (
    MIB,
    Built,
    File,
    Link,
    Refused,
    Secret,
    check_link,
    check_path,
    decode,
    derive,
    fields,
    require,
)

VECTORS = pathlib.Path(__file__).parent / "vectors"


class Report:
    def __init__(self):
        self.failures = 0

    def line(self, good, file, text):
        self.failures += not good
        print(f"{'ok  ' if good else 'FAIL'}  {file}: {text}")

    def accept(self, file, text, check):
        try:
            result = check()
        except Refused as error:
            self.line(False, file, f"refused: {error}")
            return None
        self.line(True, file, text)
        return result

    def refuse(self, file, reason, check):
        try:
            check()
        except Refused as error:
            self.line(True, file, f"refused ({reason}): {error}")
        else:
            self.line(False, file, f"accepted, and must not be: {reason}")


def flips(data):
    for position in range(0, len(data), max(1, len(data) // 1500)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        yield position, bytes(changed)


def refused_flips(data, check):
    """How many flips were refused; the first that was not ends it."""
    count = 0
    for position, changed in flips(data):
        try:
            check(changed)
        except Refused:
            count += 1
        else:
            raise Refused(f"accepted with byte {position} flipped")
    return count


def read(name):
    return (VECTORS / name).read_bytes()


def from_hex(text):
    return None if text is None else bytes.fromhex(text)


def check_tree(listed, report):
    told = json.loads(read(listed["file"]))
    objects, entries = {bytes.fromhex(i): bytes.fromhex(o) for i, o in told["objects"].items()}, {}
    for path, kind, *rest in told["entries"]:
        if kind == "symlink":
            entries[check_path(path)] = Link(check_link(path, rest[0]))
        elif kind == "secret":
            require(rest[0] <= MIB, "size of a secret")
            entries[check_path(path)] = Secret(rest[0], bytes.fromhex(rest[1]))
        else:
            size, identity = rest[0], bytes.fromhex(rest[1])
            chunks = [tuple(fields(c, 2)) for c in decode(objects[identity], 4 * MIB)] if size > MIB else None
            entries[check_path(path)] = File(kind == "executable", size, identity, chunks)

    def check():
        built = Built(entries)
        require(built.root.hex() == listed["root"], "another root")
        require((built.files, built.bytes) == (listed["files"], listed["bytes"]), "other totals")
        if built.entries:
            require(built.objects == objects, "other nodes or chunk lists")
        return built

    return report.accept(listed["file"], f"{listed['files']} entries, {len(objects)} objects, root agrees", check)


def check_edit(listed, roots, blobs, report):
    edit, old = read(listed["file"]), roots[listed["from"]]

    def apply_to_root(data):
        got = apply_edit(data, old, listed["files"], listed["bytes"], dict(blobs))
        require(got.root.hex() == listed["to"] and (got.files, got.bytes) == (listed["files"], listed["bytes"]), "root")

    def check():
        got = apply_edit(edit, old, listed["files"], listed["bytes"], blobs)
        require(got.root.hex() == listed["to"], "another root")
        require((got.files, got.bytes) == (listed["files"], listed["bytes"]), "other totals")
        require(derive("edit", edit).hex() == listed["hash"], "another hash")

    report.accept(listed["file"], f"{len(edit)} bytes, applies, root and hash agree", check)
    for cut in {0, len(edit) // 2, len(edit) - 1}:
        report.refuse(listed["file"], f"cut to {cut} bytes", lambda cut=cut: apply_to_root(edit[:cut]))
    refused = same = 0
    for _, changed in flips(edit):
        require(derive("edit", changed).hex() != listed["hash"], "a hash collision")
        try:
            apply_to_root(changed)
            same += 1
        except Refused:
            refused += 1
    text = f"{refused} flips refused by format or root" + (f", {same} mean the same and only the chain tells" if same else "")
    report.line(refused >= 9 * same, listed["file"], text)


def check_release(listed, trust, last, roots, blobs, report):
    document, channel = read(listed["file"]), listed["channel"]
    leaves = [check_leaf(decode(bytes.fromhex(leaf["encoded"]))) for leaf in listed["leaves"]]

    def check():
        release = Release(trust, channel, document)
        require(release.hash.hex() == listed["hash"] and release.number == listed["number"], "hash or number")
        require(release.root.hex() == listed["bundles_root"], "another Merkle root")
        for leaf, told in zip(leaves, listed["leaves"], strict=True):
            names = [told["name"], told["sequence"], from_hex(told["root"]), from_hex(told["chain"])]
            require(leaf == names + [told["files"], told["bytes"]], "leaf fields")
            require(leaf_hash(leaf).hex() == told["hash"], "leaf hash")
        for proof in listed["proofs"]:
            known = {index: leaves[index] for index in proof["indices"]}
            release.prove(known, [bytes.fromhex(s) for s in proof["siblings"]])
            wrong = {index: leaves[index - 1] for index in proof["indices"]}
            try:
                release.prove(wrong, [bytes.fromhex(s) for s in proof["siblings"]])
            except Refused:
                continue
            raise Refused("a proof holds for other leaves")
        floor = last and (last[0].epoch, last[0].number, last[0].hash)
        require(judge(floor, (release.epoch, release.number, release.hash, release.previous)) == "next", "does not follow")
        return release

    release = report.accept(listed["file"], "signature, leaves, proofs and succession hold", check)
    count = refused_flips(document, lambda data: Release(trust, channel, data))
    report.line(True, listed["file"], f"{count} flips refused")
    for proof in listed["proofs"]:
        record = read(proof["record"])
        report.accept(proof["record"], "holds", lambda record=record: check_record(trust, channel, record))
        count = refused_flips(record, lambda data: check_record(trust, channel, data))
        report.line(True, proof["record"], f"{count} flips refused")
    old = {leaf[0]: leaf for leaf in last[1]} if last else {}
    for name, file in listed["edits"].items():
        leaf = next(leaf for leaf in leaves if leaf[0] == name)
        report.accept(file, f"{name} {leaf[1]}: in the chain, root agrees", lambda: follow(leaf, old.get(name), read(file), roots, blobs))
    unchanged = [leaf[0] for leaf in leaves if leaf[0] not in listed["edits"]]
    report.line(all(leaf == old.get(leaf[0]) for leaf in leaves if leaf[0] in unchanged), listed["file"], f"unchanged: {unchanged}")
    return release, leaves


def follow(leaf, before, edit, roots, blobs):
    """D-12: `edit` is the one that leads from the leaf before to this one."""
    sequence, root, chain = (before[1], before[2], before[3]) if before else (0, roots[""].root, bytes(32))
    require(derive("log chain", chain, derive("edit", edit)) == leaf[3] and sequence + 1 == leaf[1], "not in the chain")
    got = apply_edit(edit, roots[root.hex()], leaf[4], leaf[5], blobs)
    require((got.root, got.files, got.bytes) == (leaf[2], leaf[4], leaf[5]), "another root")
    roots[got.root.hex()] = got


def check_later_trust(files, trust, report):
    for file in files:
        document = read(file)
        after = report.accept(file, f"follows version {trust.version}", lambda: Trust(document, before=trust))
        count = refused_flips(document, lambda data: Trust(data, before=trust))
        report.line(after.version == trust.version + 1, file, f"{count} flips refused")
        trust = after


def check_head(listed, trust, report):
    document, channel = read(listed["file"]), listed["channel"]
    want = tuple(listed[name] for name in ("epoch", "sequence", "release", "hash", "issued", "expires"))
    head = report.accept(listed["file"], "holds", lambda: Head(trust, channel, document))
    count = refused_flips(document, lambda data: Head(trust, channel, data))
    report.line(head.told == want, listed["file"], f"{count} flips refused, fields agree")


def check_refusals(index, trust, releases, roots, blobs, report):
    for case in index["refuse"]:
        data, what = read(case["file"]), case["what"]
        if what == "release":
            check = lambda: Release(trust, case["channel"], data)
        elif what == "record":
            check = lambda: check_record(trust, case["channel"], data)
        elif what == "trust":
            check = lambda: Trust(data, bytes.fromhex(case["fingerprint"]))
        elif what == "trust-2":
            check = lambda: Trust(data, before=trust)
        elif what == "head":
            check = lambda: Head(trust, case["channel"], data)
        else:
            leaves, before = (releases[case["release"] - n][1] for n in (1, 2))
            pick = lambda leaves: next(leaf for leaf in leaves if leaf[0] == case["bundle"])
            check = lambda: follow(pick(leaves), pick(before), data, roots, blobs)
        report.refuse(case["file"], case["reason"], check)


def main():
    report = Report()
    index = json.loads(read("index.json"))
    for blob in index["blobs"]:
        good = blake3.blake3(read(blob["file"])).hexdigest() == blob["id"]
        report.line(good, blob["file"], "id is the plain BLAKE3")
    trees = [check_tree(tree, report) for tree in index["trees"]]
    roots = {tree.root.hex(): tree for tree in trees}
    roots[""] = Built({})
    report.line(roots[""].root.hex() == index["empty_root"], "index.json", "empty root")
    blobs = {}
    for edit in index["edits"]:
        check_edit(edit, roots, blobs, report)
    document, fingerprint = read(index["trust"]["file"]), bytes.fromhex(index["trust"]["fingerprint"])
    trust = report.accept("trust.cose", "fingerprint and root signatures hold", lambda: Trust(document, fingerprint))
    count = refused_flips(document, lambda data: Trust(data, fingerprint))
    report.line(trust.platform.hex() == index["platform"], "trust.cose", f"{count} flips refused")
    check_later_trust(index["trust"]["later"], trust, report)
    for listed in index["heads"]:
        check_head(listed, trust, report)
    releases, last = [], None
    for listed in index["releases"]:
        last = check_release(listed, trust, last, roots, blobs, report)
        releases.append(last)
    for listed in index["other_releases"]:
        data = read(listed["file"])
        release = report.accept(listed["file"], "holds", lambda: Release(trust, listed["channel"], data))
        count = refused_flips(data, lambda data: Release(trust, listed["channel"], data))
        report.line(release.hash.hex() == listed["hash"], listed["file"], f"{count} flips refused")
    for case in index["acceptance"]:
        floor = case["floor"] and (case["floor"]["epoch"], case["floor"]["number"], bytes.fromhex(case["floor"]["hash"]))
        offer = (case["epoch"], int(case["number"]), bytes.fromhex(case["hash"]), from_hex(case["previous"]))
        if judge(floor, offer) != case["verdict"]:
            report.line(False, "index.json", f"acceptance of {case}")
    report.line(True, "index.json", f"{len(index['acceptance'])} cases of acceptance looked at")
    check_refusals(index, trust, releases, roots, blobs, report)
    listed = {file.relative_to(VECTORS).as_posix() for file in VECTORS.rglob("*") if file.is_file()}
    told = json.dumps(index)
    unknown = sorted(name for name in listed if name != "index.json" and f'"{name}"' not in told)
    report.line(not unknown, "index.json", f"files that it does not list: {unknown}")
    print(f"{report.failures} failures" if report.failures else "all as expected")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
