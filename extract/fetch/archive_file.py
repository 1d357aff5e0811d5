"""An archive: landed files in one uncompressed tar, which is read by an index at its beginning.

    2026-01~<digest>.tar      the digest is the beginning of the SHA-256 of the archive
        index.jsonl           a sealed line a file: its name, place, size in bytes and SHA-256
        <landed file> …       as they were written, byte for byte, in the order of their names

`tar xf` gives the landed files back. Of the same files comes the same archive, so one that is
written again after a kill is the one that is there. A line of the index that is damaged, or a file
behind it, is that file's damage alone: places count from the end of the index.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from extract.core import sealed
from extract.core.sealed import Damaged
from extract.fetch import encryption

INDEX = "index.jsonl"
FIELDS = frozenset({"name", "offset", "bytes", "sha256"})
BLOCK, CHUNK = tarfile.BLOCKSIZE, 2**20
END = bytes(2 * BLOCK)


@dataclass(frozen=True)
class Member:
    """A landed file within an archive: where it begins, its size in bytes and its SHA-256."""

    archive: Path
    name: str
    offset: int
    size: int
    sha256: str

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, as they are now; raises Damaged where the archive ends before it does."""
        with open(self.archive, "rb") as raw:
            raw.seek(self.offset)
            left = self.size
            while left:
                if not (chunk := raw.read(min(left, CHUNK))):
                    raise Damaged(f"{self.archive.name} ends before it does")
                left -= len(chunk)
                yield chunk

    def digest(self) -> str:
        """The SHA-256 of what it holds now: of an encrypted file, of what was encrypted."""
        return _digest(self.chunks(), self.name)


def read_index(archive: Path) -> Iterator[Member | Damaged]:
    """The files of an archive in their order; in the place of a line that cannot be read, what is
    wrong with it. Raises Damaged where no line can."""
    try:
        with open(archive, "rb") as raw:
            head = raw.read(BLOCK)
            size = _size(head)
            text = raw.read(CHUNK if size is None else size)
            while size is None and b"\0" not in text and (more := raw.read(CHUNK)):
                text += more
    except OSError as error:
        raise Damaged(f"it cannot be read: {error.strerror}") from None
    if size is None:  # the header is damaged: the index ends where its padding begins
        text = text.partition(b"\0")[0]
    data = BLOCK + _padded(len(text))
    lines = [line for line in text.split(b"\n") if line]
    found: list[Member | Damaged] = []
    for number, line in enumerate(lines, 1):
        try:
            record = sealed.unseal(line)
            if lacking := FIELDS - record.keys():
                raise Damaged(f"it has no {', '.join(sorted(lacking))}")
            if "/" in record["name"]:
                raise Damaged(f"{record['name']} is no name of a landed file")
            found.append(
                Member(
                    archive,
                    record["name"],
                    data + record["offset"],
                    record["bytes"],
                    record["sha256"],
                )
            )
        except Damaged as error:
            found.append(Damaged(f"line {number} of its index: {error}"))
    if not any(isinstance(each, Member) for each in found):
        raise Damaged("it has no index that can be read")
    yield from found


def write(out: IO[bytes], files: Iterable[Path | Member], digests: dict[str, str]) -> str:
    """Write an archive of `files` to `out`; its SHA-256. `digests` has that of each file by name.

    A member of another archive is copied with the digest that it had there, damaged or not: then it
    is as damaged here. Raises Damaged where a file is not what its digest says.
    """
    ordered = sorted(files, key=lambda file: file.name)
    lines, offset = [], 0
    for file in ordered:
        size = file.size if isinstance(file, Member) else file.stat().st_size
        offset += len(_header(file.name, size))
        lines.append(
            sealed.seal(
                {
                    "name": file.name,
                    "offset": offset,
                    "bytes": size,
                    "sha256": digests[file.name],
                }
            )
        )
        offset += _padded(size)
    index = "".join(f"{line}\n" for line in lines).encode()
    whole = hashlib.sha256()

    def put(data: bytes) -> None:
        out.write(data)
        whole.update(data)

    put(_header(INDEX, len(index)) + index + bytes(_padded(len(index)) - len(index)))
    for file in ordered:
        size = file.size if isinstance(file, Member) else file.stat().st_size
        put(_header(file.name, size))
        found = _digest(_each(_chunks(file), put), file.name)
        if isinstance(file, Path) and found != digests[file.name]:
            raise Damaged(f"{file.name} is not what it was a moment ago")
        put(bytes(_padded(size) - size))
    put(END)
    return whole.hexdigest()


def _chunks(file: Path | Member) -> Iterator[bytes]:
    if isinstance(file, Member):
        yield from file.chunks()
        return
    with open(file, "rb") as raw:
        while chunk := raw.read(CHUNK):
            yield chunk


def _each(chunks: Iterator[bytes], put: Callable[[bytes], None]) -> Iterator[bytes]:
    for chunk in chunks:
        put(chunk)
        yield chunk


def _digest(chunks: Iterator[bytes], name: str) -> str:
    """The SHA-256 by which a landed file goes, under whichever key it is written."""
    first, found = next(chunks, b""), hashlib.sha256()
    if encryption.is_encrypted(first):
        return hashlib.sha256(encryption.decrypt(first + b"".join(chunks), name)).hexdigest()
    found.update(first)
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()


def _header(name: str, size: int) -> bytes:
    """What stands before a file in a tar: the same in each process and at each time."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _size(head: bytes) -> int | None:
    """The size of the file that a header of tar is of; None where that is damaged."""
    try:
        entry = tarfile.TarInfo.frombuf(head, "utf-8", "strict")
    except (tarfile.TarError, UnicodeDecodeError):
        return None
    return entry.size if entry.name == INDEX else None


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
