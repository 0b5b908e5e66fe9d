"""Edits, from specs/edit.md."""

import blake3
import zstandard
from formats import MIB, Built, File, Link, Refused, Secret, check_link, check_path, chunk_list, derive, require


class Input:
    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def take(self, count):
        require(count <= self.left(), "ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            require(value < 1 << 64, "integer over 64 bits")
            if byte < 128:
                require(byte > 0 or shift == 0, "integer not in its shortest form")
                return value
            shift += 7

    def difference(self, base):
        zigzag = self.integer()
        value = base + (zigzag >> 1 if zigzag & 1 == 0 else -(zigzag >> 1) - 1)
        require(0 <= value < 1 << 64, "difference out of range")
        return value


def unpack(packed, prefix, size):
    """E-9: one magicless frame, of exactly `size` bytes."""
    form = zstandard.FORMAT_ZSTD1_MAGICLESS
    history = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
    context = zstandard.ZstdDecompressor(dict_data=history, format=form, max_window_size=1 << 26)
    stream = context.decompressobj()
    try:
        content = stream.decompress(packed)
    except zstandard.ZstdError as error:
        raise Refused(f"frame: {error}") from error
    require(stream.eof and not stream.unused_data and len(content) == size, "frame is not of its declared length")
    return content


class Step:
    """One operation: its tag's parts, its position, and what the columns say."""

    def __init__(self, tag, position):
        self.op, self.kind, self.pieces, self.base = tag & 7, tag >> 3 & 3, tag >> 5 & 1, tag >> 6
        require(self.op <= 6, "unknown operation")
        require(self.op >= 2 or tag < 8, "unused bits")
        require(self.op in (2, 3) or not self.pieces, "unused bits")
        require(self.op in (3, 6) or self.base == 0, "unused bits")
        self.position, self.body = position, None

    def has_path(self):
        return self.op in (3, 4, 6)

    def has_body(self):
        return self.op in (2, 3, 5, 6)

    def has_hunks(self):
        return self.op in (5, 6)


def operations(data, old, most, size):
    """E-2 to E-7."""
    form = data.take(1)[0]
    require(form in (1, 2), "unknown format")
    count, length = data.integer(), data.integer()
    require(count <= most and length <= min(count * 1152 + size + size // 16384 * 8, 96 * MIB), "too many operations")
    columns = Input(data.take(length) if form == 1 else unpack(data.take(data.integer()), b"", length))
    tags, steps, position = columns.take(count), [], 0
    for tag in tags:
        steps.append(Step(tag, position + columns.integer()))
        position = steps[-1].position + (steps[-1].op in (0, 1, 2, 5))
        require(position <= 2_000_001, "position out of range")
    named = [step for step in steps if step.has_path()]
    shared = [columns.integer() for _ in named]
    lengths = [columns.integer() for _ in named]
    before = (None, None)
    for step, share, size in zip(named, shared, lengths):
        if before[0] == step.position:
            text = before[1].encode()
        else:
            text = at(old, step.position - 1)[0].encode() if step.position else b""
        require(share <= len(text) and size <= 1024, "front coding")
        try:
            step.path = check_path((text[:share] + columns.take(size)).decode())
        except UnicodeDecodeError as error:
            raise Refused("path is not UTF-8") from error
        before = (step.position, step.path)
    for step in steps:
        if step.op == 4 or step.op in (3, 6) and step.base == 3:
            step.reference = columns.difference(step.position)
    for step in steps:
        if step.op in (2, 3) and not step.pieces:
            base = at(old, step.position)[1].size if step.op == 2 else 0
            step.body = columns.difference(base)
            require(step.body <= MIB, "size")
    for step in steps:
        if step.op in (2, 3) and step.pieces:
            step.body = pieces(columns)
    hunks(columns, [step for step in steps if step.has_hunks()])
    require(columns.left() == 0, "bytes after the operations")
    return steps


def hunks(columns, steps):
    """E-15: of every patched file the list of (keep, drop, insert)."""
    counts = [columns.integer() for _ in steps]
    require(all(counts) and sum(counts) * 3 <= columns.left(), "hunk count")
    keeps = [columns.integer() for _ in range(sum(counts))]
    drops = [columns.integer() for _ in keeps]
    inserts = [columns.difference(drop) for drop in drops]
    every = list(zip(keeps, drops, inserts))
    require(all(max(hunk) <= MIB and hunk[1] + hunk[2] for hunk in every), "hunk out of range")
    for step, count in zip(steps, counts):
        step.body, every = every[:count], every[count:]


def patched(base, hunks, inserted):
    out = b""
    for keep, drop, insert in hunks:
        require(keep + drop <= len(base), "keeps or drops more than the base has")
        out, base, inserted = out + base[:keep] + inserted[:insert], base[keep + drop :], inserted[insert:]
    require(len(out) + len(base) <= MIB, "size")
    return out + base


def pieces(columns):
    out, total = [], 0
    for _ in range(limited(columns.integer())):
        run = columns.integer()
        total = limited(total + (run >> 1))
        if run & 1:
            sizes = [columns.integer() for _ in range(run >> 1)]
            require(all(1 <= size <= MIB for size in sizes), "chunk size")
            out.append(("new", sizes))
        else:
            out.append(("keep", columns.integer(), run >> 1))
    return out


def limited(count):
    require(count <= 16385, "chunks of a file")
    return count


def at(old, position):
    require(position < len(old), "position past the old tree")
    return old[position]


def base_chunks(step, old):
    """E-8: the chunks of the base, and those of them that may stand in a prefix."""
    position = None
    if step.op in (2, 5) and step.kind < 2:
        position = step.position
    elif step.op in (3, 6):
        before = step.position - 1 if step.position else None
        position = [None, before, step.position, getattr(step, "reference", None)][step.base]
    if position is None:
        return [], []
    entry = at(old, position)[1]
    if not isinstance(entry, File):
        chunks = []
    else:
        chunks = entry.chunks if entry.chunks is not None else [(entry.id, entry.size)]
    kept = set()
    if step.pieces:
        for piece in step.body:
            if piece[0] == "keep":
                require(piece[1] + piece[2] <= len(chunks), "keeps chunks that are not there")
                kept.update(range(piece[1], piece[1] + piece[2]))
    return chunks, [chunk for n, chunk in enumerate(chunks) if n not in kept]


def contents(data, steps, old, blobs, allowed):
    """E-9 to E-12: every unit of content, in order."""
    units = []
    for step in steps:
        if not step.has_body():
            continue
        if step.has_hunks():
            sizes = [sum(insert for _, _, insert in step.body)]
        else:
            sizes = [s for p in step.body if p[0] == "new" for s in p[1]] if step.pieces else [step.body]
        base = base_chunks(step, old)[1]
        for size in sizes:
            units.append((size, base))
            base = []
    require(sum(size for size, _ in units) <= allowed, "more content than was signed")
    frames, total = [], 0
    for size, base in units:
        if not frames or total + size > 16 * MIB:
            frames.append([])
            total = 0
        frames[-1].append((size, base))
        total += size
    out, content = [], b""
    for index, frame in enumerate(frames):
        last = index + 1 == len(frames)
        packed = data.take(data.left() if last else data.integer())
        prefix, seen, held = bytearray(content[-8 * MIB :]), set(), 0
        for identity, size in (chunk for size, base in frame if size for chunk in base):
            if identity not in seen and held + size <= 16 * MIB:
                seen.add(identity)
                held += size
                prefix += blobs[identity]
        size = sum(size for size, _ in frame)
        # E-12: a last frame that holds nothing may be left away.
        content = unpack(packed, bytes(prefix), size) if packed or size else b""
        position = 0
        for size, _ in frame:
            out.append(content[position : position + size])
            position += size
    require(data.left() == 0, "bytes after the end")
    return out


def apply_edit(edit, old, files, size, blobs):
    """The tree that an edit gives. New blobs go to `blobs`."""
    data = Input(edit)
    steps = operations(data, old.entries, len(old.entries) + files, size)
    given = iter(contents(data, steps, old.entries, blobs, size))
    changes = {}

    def blob(content=None):
        content = next(given) if content is None else content
        identity = blake3.blake3(content).digest()
        blobs[identity] = content
        return identity, len(content)

    for step in steps:
        path, before = (step.path, None) if step.has_path() else at(old.entries, step.position)
        require(path not in changes, "changes a path twice")
        if step.op == 0:
            changes[path] = None
        elif step.op in (1, 4):
            source = before if step.op == 1 else at(old.entries, step.reference)[1]
            require(isinstance(source, File) or step.op == 4 and isinstance(source, Secret), "mode or copy of a link")
            require(step.op == 1 or step.kind != 2, "copy to a link")
            chunks = getattr(source, "chunks", None)
            if step.op == 4 and step.kind == 3:
                require(chunks is None, "secret of chunks")
                changes[path] = Secret(source.size, source.id)
            else:
                executable = not source.executable if step.op == 1 else step.kind == 1
                changes[path] = File(executable, source.size, source.id, chunks)
        elif step.kind == 2:
            require(not step.pieces and not step.has_hunks(), "link in pieces or hunks")
            try:
                changes[path] = Link(check_link(path, next(given).decode()))
            except UnicodeDecodeError as error:
                raise Refused("link target is not UTF-8") from error
        elif step.kind == 3:
            require(not step.pieces and not step.has_hunks(), "secret in pieces or hunks")
            identity, length = blob()
            changes[path] = Secret(length, identity)
        elif step.has_hunks():
            base = base_chunks(step, old.entries)[0]
            position = step.position - (step.base == 1)
            source = at(old.entries, getattr(step, "reference", position))[1] if step.op == 5 or step.base else None
            require(isinstance(source, File) and source.chunks is None and base, "patches what is no small file")
            identity, length = blob(patched(blobs[base[0][0]], step.body, next(given)))
            changes[path] = File(step.kind == 1, length, identity, None)
        elif not step.pieces:
            identity, length = blob()
            changes[path] = File(step.kind == 1, length, identity, None)
        else:
            base, chunks = base_chunks(step, old.entries)[0], []
            for piece in step.body:
                chunks += [blob() for _ in piece[1]] if piece[0] == "new" else base[piece[1] : piece[1] + piece[2]]
            length = sum(size for _, size in chunks)
            require(MIB < length <= 1 << 28, "size of a file of chunks")
            changes[path] = File(step.kind == 1, length, derive("chunk list", chunk_list(chunks)), chunks)
    entries = dict(old.entries)
    for path, entry in changes.items():
        entries.pop(path, None)
        if entry is not None:
            entries[path] = entry
    return Built(entries)
