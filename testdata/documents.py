"""Signed documents, proofs and acceptance, from specs/documents.md."""

import io

import cbor2
from formats import MIB, Refused, check_name, decode, derive, fields, number, octets, require
from pycose.keys import OKPKey
from pycose.keys.curves import Ed25519
from pycose.messages import Sign1Message

MAX_NUMBER = (1 << 53) - 1

P = 2**255 - 19
Y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
D = -121665 * pow(121666, -1, P)
# Doubling a point of order 8 gives one with y = 0, so -x^2 = y^2 on the curve.
assert (D * Y8**4 + 2 * Y8**2 - 1) % P == 0
SMALL_ORDER = {0, 1, P - 1, P, P + 1, Y8, P - Y8}


def check_point(data):
    """D-7: neither key nor R has small order."""
    require(int.from_bytes(data, "little") & ~(1 << 255) not in SMALL_ORDER, "a point of small order")


def key_set(value):
    threshold, keys = fields(value, 2)
    require(type(keys) is list and 1 <= number(threshold) <= len(keys) <= 64, "threshold")
    for key in keys:
        check_point(octets(key, 32))
    require(len(set(keys)) == len(keys), "a key named twice")
    return threshold, {derive("key", key)[:8]: key for key in keys}


def verify(kind, platform, document, keys):
    """D-1 to D-9: the payload, if enough of `keys` signed it."""
    items = parse(kind, document)
    threshold, known = keys
    payloads, good = {item[2] for item in items}, set()
    require(len(payloads) == 1, "signatures over different payloads")
    for whole, key, _, signature in items:
        if key not in known:
            continue
        message = Sign1Message.decode(whole)
        message.external_aad = cbor2.dumps([kind, platform])
        message.key = OKPKey(crv=Ed25519, x=known[key])
        check_point(signature[:32])
        require(message.verify_signature(), "a signature does not verify")
        good.add(key)
    require(len(good) >= threshold, "too few signatures")
    return payloads.pop()


def parse(kind, document):
    require(len(document) <= 64 * 1024, "too large")
    stream, items = io.BytesIO(document), []
    while stream.tell() < len(document):
        start = stream.tell()
        try:
            tagged = cbor2.CBORDecoder(stream).decode()
        except Exception as error:
            raise Refused(f"not CBOR: {error}") from error
        whole = document[start : stream.tell()]
        require(isinstance(tagged, cbor2.CBORTag) and tagged.tag == 18 and whole[0] == 0xD2, "no tag 18")
        protected, unprotected, payload, signature = fields(decode(whole[1:]), 4)
        octets(protected)
        key = protected[5:13]
        header = bytes.fromhex("a301270448") + key + b"\x10" + cbor2.dumps(kind)
        require(len(key) == 8 and protected == header, "protected header")
        require(unprotected == {}, "unprotected header")
        items.append((whole, key, octets(payload), octets(signature, 64)))
    require(1 <= len(items) <= 16, "no signature, or too many")
    return items


class Trust:
    """A version of trust: the pinned first, or the one that follows `before`."""

    def __init__(self, document, fingerprint=None, before=None):
        payload = parse("rootcast-trust", document)[-1][2]
        require(before or derive("trust", payload) == fingerprint, "fingerprint")
        platform, version, issued, expires, roots, grants, heads, authorities = fields(decode(payload), 8)
        self.platform, self.version = octets(platform, 16), number(version, MAX_NUMBER)
        require(self.version == (before.version + 1 if before else 1), "version")
        require(number(issued) < number(expires), "dates")
        self.heads, self.roots = key_set(heads), key_set(roots)
        require(type(authorities) is list and 1 <= len(authorities) <= 2, "authorities")
        require(len({octets(authority, 32) for authority in authorities}) == len(authorities), "an authority twice")
        require(type(grants) is list and 1 <= len(grants) <= 256, "grants")
        self.grants = []
        for grant in grants:
            prefix, epoch, publishers, limits, symlinks = fields(grant, 5)
            files, size, _ = (number(limit) for limit in fields(limits, 3))
            check_name(prefix)
            require(1 <= number(epoch, MAX_NUMBER), "epoch")
            require(type(symlinks) is bool, "symlinks")
            require(all(not under(prefix, g[0]) and not under(g[0], prefix) for g in self.grants), "overlap")
            self.grants.append((prefix, key_set(publishers), files, size, epoch))
        if before:
            require(self.platform == before.platform, "another platform")
            for old, new in ((old, new) for old in before.grants for new in self.grants):
                require(new[4] >= old[4] or not (under(old[0], new[0]) or under(new[0], old[0])), "an epoch goes back")
            verify("rootcast-trust", self.platform, document, before.roots)
        verify("rootcast-trust", self.platform, document, self.roots)

    def grant(self, channel):
        grants = [grant for grant in self.grants if under(channel, grant[0])]
        require(grants, "no grant")
        return grants[0]


class Head:
    def __init__(self, trust, channel, document):
        payload = verify("rootcast-head", trust.platform, document, trust.heads)
        name, epoch, sequence, release, issued, expires = fields(decode(payload), 6)
        require(check_name(name) == channel, "another channel")
        require(number(epoch) == trust.grant(channel)[4], "another epoch")
        require(1 <= number(sequence, MAX_NUMBER) and number(issued) < number(expires), "sequence or dates")
        of_epoch, count, own = fields(release, 3)
        require(1 <= number(of_epoch, MAX_NUMBER) and 1 <= number(count, MAX_NUMBER), "release")
        self.told = (epoch, sequence, count, octets(own, 32).hex(), issued, expires)


def under(name, prefix):
    return name == prefix or name.startswith(prefix + "/")


class Release:
    def __init__(self, trust, channel, document):
        self.grant = trust.grant(channel)
        payload = verify("rootcast-release", trust.platform, document, self.grant[1])
        name, epoch, count, previous, root, bundles, files, size, commit, issued = fields(decode(payload), 10)
        self.hash, self.number, self.previous = derive("release", payload), number(count, MAX_NUMBER), previous
        self.root, self.bundles = octets(root, 32), number(bundles, 100_000)
        require(check_name(name) == channel, "another channel")
        require(number(epoch) == self.grant[4], "another epoch")
        self.epoch = epoch
        require(self.number >= 1 and self.bundles >= 1 and (self.number == 1) == (previous is None), "number")
        if previous is not None:
            octets(previous, 32)
        require(number(files) <= 2_000_000 * bundles and number(size) <= (400 << 20) * bundles, "totals")
        octets(commit, 0, 20, 32)
        number(issued)

    def prove(self, leaves, siblings):
        """D-13 to D-15; `leaves` by index."""
        rest = list(siblings)
        require(leaves and max(leaves) < self.bundles, "index")

        def fold(start, length):
            if not any(start <= index < start + length for index in leaves):
                require(rest, "proof is short")
                return rest.pop(0)
            if length == 1:
                return leaf_hash(leaves[start])
            left = 1 << (length - 1).bit_length() - 1
            return derive("bundle inner", fold(start, left), fold(start + left, length - left))

        require(fold(0, self.bundles) == self.root and not rest, "not the signed root")
        names = [leaf[0] for _, leaf in sorted(leaves.items())]
        require(all(a < b for a, b in zip(names, names[1:])), "names out of order")
        for leaf in leaves.values():
            require(leaf[4] <= self.grant[2] and leaf[5] <= self.grant[3], "over the grant")


def leaf_hash(leaf):
    return derive("bundle leaf", cbor2.dumps(leaf))


def check_leaf(value):
    name, sequence, root, chain, files, size = fields(value, 6)
    check_name(name)
    octets(root, 32)
    octets(chain, 32)
    number(sequence), number(files), number(size)
    return value


def check_record(trust, channel, data):
    document, leaves, siblings = fields(decode(data, MIB), 3)
    known = {}
    require(type(leaves) is list and type(siblings) is list, "not arrays")
    for pair in leaves:
        index, leaf = fields(pair, 2)
        require(number(index) not in known, "an index twice")
        known[index] = check_leaf(leaf)
    release = Release(trust, channel, octets(document))
    release.prove(known, [octets(sibling, 32) for sibling in siblings])


def judge(floor, offer):
    """D-30."""
    epoch, count, own, previous = offer
    if not 1 <= count <= MAX_NUMBER or (count == 1) != (previous is None):
        return "out of range"
    if floor is None:
        return "next" if count == 1 else "jump"
    if epoch < floor[0]:
        return "epoch"
    follows = count == floor[1] + 1 and previous == floor[2]
    if epoch > floor[0]:
        return "next" if follows else "jump"
    if count < floor[1]:
        return "rollback"
    if count == floor[1]:
        return "same" if own == floor[2] else "equivocation"
    if count > floor[1] + 1:
        return "jump"
    return "next" if follows else "fork"
