"""Canonical CBOR, paths and trees, from specs/codec.md and specs/tree.md."""

import io

import blake3
import cbor2

MIB = 1 << 20


class Refused(Exception):
    """The input breaks a rule of the specification."""


def require(condition, reason):
    if not condition:
        raise Refused(reason)


def derive(kind, *parts):
    return blake3.blake3(b"".join(parts), derive_key_context=f"rootcast 2026 {kind}").digest()


def decode(data, limit=64 * 1024):
    """One canonical item (K-1 to K-4)."""
    require(len(data) <= limit, "too large")
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except Exception as error:  # cbor2 lets many kinds of errors through.
        raise Refused(f"not CBOR: {error}") from error
    plain(value, 0)
    require(cbor2.dumps(value, canonical=True) == data, "not canonical")
    return value


def plain(value, depth):
    require(depth <= 8, "nested too deep")
    if type(value) is list:
        for item in value:
            plain(item, depth + 1)
    elif type(value) is dict:
        for key, item in value.items():
            plain(key, depth + 1)
            plain(item, depth + 1)
    else:
        require(value is None or type(value) in (int, bool, bytes, str), "a type that is not used")


def number(value, most=(1 << 64) - 1):
    require(type(value) is int and 0 <= value <= most, "not an unsigned integer")
    return value


def octets(value, *lengths):
    require(type(value) is bytes and (not lengths or len(value) in lengths), "not bytes of this length")
    return value


def fields(value, count):
    require(type(value) is list and len(value) == count, f"not an array of {count}")
    return value


def check_path(text):
    """T-3."""
    require(type(text) is str and text, "not a path")
    require(len(text.encode()) <= 1024 and not text.startswith("/"), "path")
    require(not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text), "control character")
    segments = text.split("/")
    require(len(segments) <= 64, "too many segments")
    for segment in segments:
        require(segment not in ("", ".", "..") and len(segment.encode()) <= 255, "segment")
    return text


def check_name(text):
    """T-3."""
    check_path(text)
    require(len(text) <= 128 and all(c in "abcdefghijklmnopqrstuvwxyz0123456789._-/" for c in text), "name")
    return text


def check_link(path, target):
    """T-3: leading `..` within the bundle, and none after a name."""
    require(target and len(target.encode()) <= 1024 and not target.startswith("/"), "link target")
    require(not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in target), "control character")
    above, named = path.count("/"), False
    for segment in target.split("/"):
        if segment == "..":
            require(not named and above > 0, "link leaves the bundle")
            above -= 1
        elif segment not in ("", "."):
            named = True
    return target


class File:
    def __init__(self, executable, size, identity, chunks):
        self.executable, self.size, self.id, self.chunks = executable, size, identity, chunks

    def encoded(self):
        return [int(self.executable), self.size, self.id]


class Secret:
    def __init__(self, size, identity):
        self.size, self.id = size, identity

    def encoded(self):
        return [3, self.size, self.id]


class Link:
    def __init__(self, target):
        self.target, self.size = target, len(target.encode())

    def encoded(self):
        return [2, self.target]


class Built:
    """A tree: its entries in path order, and the bytes of its nodes and chunk lists."""

    def __init__(self, entries):
        self.entries = sorted(entries.items(), key=lambda item: item[0].encode())
        self.objects = {}
        for path, entry in self.entries:
            for at, byte in enumerate(path):
                require(byte != "/" or path[:at] not in entries, "a file above a file")
            if isinstance(entry, File) and entry.chunks is not None:
                self.objects[entry.id] = chunk_list(entry.chunks)
        self.files = len(self.entries)
        self.bytes = sum(entry.size for _, entry in self.entries)
        self.root = self.build()

    def node(self, level, items):
        data = cbor2.dumps([level, items])
        identity = derive("tree node", data)
        self.objects[identity] = data
        return identity

    def build(self):
        if not self.entries:
            return self.node(0, [])
        level, items = 0, [(path, [path, entry.encoded()], 1, entry.size) for path, entry in self.entries]
        while True:
            nodes, run = [], []
            for item in items:
                run.append(item)
                bits = int.from_bytes(blake3.blake3(item[0].encode()).digest()[:8], "little")
                if (bits >> (6 * level)) & 63 == 0 or len(run) == 1024:
                    nodes.append(run)
                    run = []
            nodes += [run] if run else []
            items = []
            for run in nodes:
                last, files, size = run[-1][0], sum(i[2] for i in run), sum(i[3] for i in run)
                identity = self.node(level, [i[1] for i in run])
                items.append((last, [last, identity, files, size], files, size))
            if len(items) == 1:
                return items[0][1][1]
            level += 1


def chunk_list(chunks):
    return cbor2.dumps([[identity, size] for identity, size in chunks])
