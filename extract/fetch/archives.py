"""The archives of a landing: the loaded files of a source and month, once they are old, in one file.

    kept(root)              loaded files by name, wherever they are
    inspect(file)           landing.inspect, of a file by itself or in an archive
    extracted(files, …)     the same files as paths, for their readers
    due(root, …), pack(…)   months with files to be packed, and packing one
    put_aside(root, …)      damaged files into the quarantine, each under its name
    unpack(root, key)       archives whose files are to be written again under another key

A file is never in no place: an archive appears by one rename, is read back, and only then do the
files go that it holds. After a kill between, a file is in two places and counts once, since it goes
by its name; the next packing finishes that. The process that packs or puts aside holds the warehouse.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from extract.core import durable
from extract.core.interval import first_of_month
from extract.core.quarantine import FOLDER, quarantine
from extract.core.sealed import Damaged
from extract.fetch import archive_file, encryption, landing
from extract.fetch.archive_file import Member, read_index

Kept = Path | Member
log = logging.getLogger(__name__)


class Month(NamedTuple):
    """A folder of loaded files, and the archive they are packed into; `month` is YYYY-MM."""

    source: str
    month: str


@dataclass
class Packed:
    """What packing did: files packed, their bytes, and files that were left where they are, with
    what is wrong with them."""

    files: int = 0
    bytes: int = 0
    left: dict[str, str] = field(default_factory=dict)


def archives(root: Path, month: Month | None = None) -> list[Path]:
    """The archives of a landing, or those of a month: one, unless a kill has left an older one."""
    pattern = f"{month.source}/{month.month}~*.tar" if month else "*/????-??~*.tar"
    return sorted(file for file in Path(root).glob(pattern) if file.parent.name != FOLDER)


def kept(root: Path) -> dict[str, Kept]:
    """Loaded files by name: those by themselves, and those that only an archive has."""
    found: dict[str, Kept] = {}
    for archive in archives(root):
        try:
            for member in read_index(archive):
                if isinstance(member, Member):
                    found.setdefault(member.name, member)
        except Damaged as error:
            log.warning("%s: %s", archive, error)
    return {**found, **landing.archived(root)}


def inspect(file: Kept, expected: str | None = None) -> str:
    """The digest of a file that is as it was written; raises Damaged where it is not."""
    if isinstance(file, Path):
        return landing.inspect(file, expected)
    try:
        found = file.digest()
    except OSError as error:
        raise Damaged(f"{file.archive.name} cannot be read: {error.strerror}") from None
    match = landing.NAME.fullmatch(file.name)
    named = match["id"] if match and len(match["id"]) == landing.DIGITS else ""
    if not {file.sha256, expected or found} == {found} or not found.startswith(named):
        raise Damaged(f"it is not what was written: its SHA-256 in {file.archive.name} is {found}")
    return found


@contextmanager
def extracted(files: Sequence[Kept], folder: Path) -> Iterator[list[Path]]:
    """The files as paths, those of archives for a while under their names in `folder`."""
    made: list[Path] = []
    try:
        for file in files:
            if isinstance(file, Member):
                folder.mkdir(parents=True, exist_ok=True)
                made.append(folder / file.name)
                with open(made[-1], "wb") as out:
                    out.writelines(file.chunks())
        yield [file if isinstance(file, Path) else folder / file.name for file in files]
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def damage(root: Path) -> Iterator[tuple[Path, str]]:
    """Archives that are not as they were written though their files may be: (archive, what)."""
    for archive in archives(root):
        try:
            members = list(read_index(archive))
        except Damaged as error:
            yield archive, str(error)
            continue
        if wrong := [str(each) for each in members if isinstance(each, Damaged)]:
            yield archive, "; ".join(wrong)
        elif not durable.digest(archive).startswith(archive.stem.rpartition("~")[2]):
            yield archive, "its SHA-256 is not the one in its name"


def due(root: Path, older_than: datetime) -> list[Month]:
    """Months that were over by `older_than` (aware) and have files by themselves since before it."""
    found = set()
    for folder in Path(root).glob("*/????-??"):
        if _end(folder.name) <= older_than.date() and next(_old(folder, older_than), None):
            found.add(Month(folder.parent.name, folder.name))
    return sorted(found)


def _end(month: str) -> date:
    return first_of_month(date.fromisoformat(f"{month}-01") + timedelta(days=31))


def _old(folder: Path, older_than: datetime) -> Iterator[Path]:
    for file in sorted(folder.glob("*.jsonl.zst")):
        if file.stat().st_mtime < older_than.timestamp():
            yield file


def pack(root: Path, month: Month, older_than: datetime, loads: Sequence[landing.Load]) -> Packed:
    """Put the old files of a month, those that `loads` list, into its archive.

    A damaged file is left where it is, and one that is damaged in the archive replaced by one that
    is not. Raises Damaged where an archive that is there cannot be read, with nothing changed.
    """
    root, done, sound = Path(root), Packed(), dict[str, Path]()
    noted = {name: load.digests.get(name) for load in loads for name in load.files}
    folder, digests = root / month.source / month.month, dict[str, str]()
    old = archives(root, month)
    members: dict[str, Kept] = {}
    for archive in old:
        for member in read_index(archive):
            if isinstance(member, Damaged):
                raise Damaged(f"{archive}: {member}")
            members[member.name] = member
            digests[member.name] = member.sha256
    for file in _old(folder, older_than):
        if file.name in noted:
            try:
                digests[file.name] = landing.inspect(file, noted[file.name])
                sound[file.name] = file
                done.files += 1
                done.bytes += file.stat().st_size
            except Damaged as error:
                done.left[file.name] = str(error)
    if not sound:
        return done
    new = _write(root, month, [*{**members, **sound}.values()], digests)
    there = {member.name: member for member in read_index(new) if isinstance(member, Member)}
    for name in sound:  # nothing is removed that cannot be read back
        inspect(there[name], digests[name])
    for file in (*(archive for archive in old if archive != new), *sound.values()):
        file.unlink(missing_ok=True)
    durable.sync(new.parent)
    _remove_if_empty(folder)
    return done


def _write(root: Path, month: Month, files: Sequence[Kept], digests: Mapping[str, str]) -> Path:
    """Write the archive of a month; its path."""
    draft = root / f".{uuid4().hex}.part"
    try:
        with open(draft, "wb") as out:
            digest = archive_file.write(out, files, dict(digests))
        name = f"{month.month}~{digest[: landing.DIGITS]}.tar"
        return durable.place(draft, durable.folder(root / month.source) / name)
    finally:
        draft.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # not empty, or gone
        return
    durable.sync(folder.parent)


def put_aside(root: Path, damaged: Mapping[str, str]) -> None:
    """Move files that `damaged` names, with the reason, to the quarantine of `root`, and archives
    whose index is damaged; their other files are in a new archive then."""
    root = Path(root)
    single = landing.archived(root)
    for archive in archives(root):
        month = Month(archive.parent.name, archive.name.partition("~")[0])
        try:
            members = list(read_index(archive))
        except Damaged as error:
            quarantine(root, archive, str(error))
            continue
        wrong = [each for each in members if isinstance(each, Damaged)]
        mine = [each for each in members if isinstance(each, Member)]
        for member in mine:
            if member.name in damaged and member.name not in single:
                single[member.name] = _take_out(root, month, member)
        sound = [member for member in mine if member.name not in damaged]
        if len(sound) == len(members):
            continue
        if sound:
            _write(root, month, sound, {member.name: member.sha256 for member in sound})
        if wrong:
            quarantine(root, archive, str(wrong[0]))
        else:
            archive.unlink()
            durable.sync(archive.parent)
    for name, why in damaged.items():
        if name in single:
            folder = single[name].parent
            quarantine(root, single[name], why)
            _remove_if_empty(folder)


def is_encrypted(file: Kept) -> bool:
    """Whether a loaded file is encrypted."""
    if isinstance(file, Path):
        return landing.is_encrypted(file)
    return encryption.is_encrypted(_head(file))


def unpack(root: Path, key: encryption.Key | None) -> dict[str, str]:
    """Take apart the archives with a file under another key than `key` (None: in plain text), so
    that it can be written again; the next packing packs them. {archive: why it stays} of damaged
    ones. A file is in two places before it is in one, as when it was packed."""
    root, wanted, left = Path(root), key.id if key else "", dict[str, str]()
    for archive in archives(root):
        try:
            members = [_whole(member) for member in read_index(archive)]
            if all(_key_id(member) == wanted for member in members):
                continue
            month = Month(archive.parent.name, archive.name.split("~")[0])
            single = landing.archived(root)
            for member in members:
                if member.name not in single:
                    inspect(member)
                    _take_out(root, month, member)
        except Damaged as error:
            left[archive.name] = str(error)
            continue
        archive.unlink()
        durable.sync(archive.parent)
    return left


def _whole(member: Member | Damaged) -> Member:
    if isinstance(member, Damaged):
        raise member
    return member


def _head(member: Member) -> bytes:
    return next(iter(member.chunks()), b"")[: encryption.HEAD]


def _key_id(member: Member) -> str:
    """The id of the key of a file in an archive; '' where it is plain text."""
    head = _head(member)
    return encryption.key_id(head) if encryption.is_encrypted(head) else ""


def _take_out(root: Path, month: Month, member: Member) -> Path:
    """A damaged file of an archive as a file by itself, as much of it as there is."""
    path = durable.folder(root / month.source / month.month) / member.name
    draft = root / f".{uuid4().hex}.part"
    with open(draft, "wb") as out:
        try:
            out.writelines(member.chunks())
        except Damaged:
            pass  # what there was
    return durable.place(draft, path)


__all__ = [
    "Kept", "Member", "Month", "Packed", "archives", "damage", "due", "extracted", "inspect",
    "is_encrypted", "kept", "pack", "put_aside", "unpack",
]  # fmt: skip
