"""The landing: files of API responses exactly as received, written once, never changed.

One file a fetch, `<source>~<account>~<start>~<end>~<digest>.jsonl.zst`: a header line (what was
asked, what it covers and why paging ended), then a line a page with the body as text. A file
appears by one rename after its fetch has ended, so whatever is seen is complete (of a fetch that
was stopped for its cost the header covers what was read whole). New files
wait in `inbox/`; the loader moves them to `<source>/<YYYY-MM>/` once they are committed, and
notes in `loads.jsonl` which files it committed together, and in which order; the transform, in
`openings.jsonl`, which opening balances it has fixed.

Damage is noticed: the frame carries a checksum of its content, the name the beginning of the
SHA-256 of the file, loads.jsonl all of it, and each of its lines a sum of its own. Files and lines
of 0.1 have none of these, and are read as they are.

With a key (see extract.fetch.encryption) a file is the same bytes in an encrypted frame, and lines
of openings.jsonl are such frames. Names and digests are those of what is inside: to encrypt a
landing, or to change its key, changes neither. Names, and so loads.jsonl, say source, account and
time.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from extract.core import durable, sealed
from extract.core.interval import UTC, iso, utc
from extract.core.redact import redact
from extract.core.sealed import Damaged
from extract.core.source import Fetched, Job
from extract.fetch import encryption

LOADS, OPENINGS = "loads.jsonl", "openings.jsonl"
ENCRYPTED = "encrypted"  # the only field of a record of openings.jsonl that is
OF_LOADS = frozenset({"sequence", "batch_id", "loaded_at", "files"})
OF_OPENINGS = frozenset({"source", "account", "since", "snapshot", "evidence", "amounts"})
LEVEL = 6  # zstd: 3 costs 12 % more bytes, 12 costs three times the CPU (debank pages)


NAME = re.compile(r"[^~]+~[^~]+~\d{8}T\d{6}~\d{8}T\d{6}~(?P<id>[0-9a-f]+)\.jsonl\.zst")
CHUNK = 2**16  # a file of 0.1 is read in such pieces: few compressed bytes may be many
DIGITS = 32  # of the digest in a name; the names of 0.1 have 12 digits that mean nothing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Load:
    """One committed batch: its place in the order of loads, and its files by name.

    `digests`: the SHA-256 of each file, as hexadecimal digits; empty in lines of 0.1.
    """

    sequence: int
    batch_id: str
    loaded_at: datetime
    files: tuple[str, ...]
    digests: Mapping[str, str] = field(default_factory=dict)


def write(
    root: Path, job: Job, fetched: Fetched, run: dict[str, Any], secrets: tuple[str, ...] = ()
) -> Path:
    """Land one whole fetch; `run` says which run made it (dag_id, run_id, …). Returns the file.

    `secrets` are redacted wherever a vendor has echoed them.
    """
    import zstandard

    key = encryption.for_writing(durable.folder(Path(root)))
    inbox = durable.folder(Path(root) / "inbox")
    stamp = f"{job.interval.start:%Y%m%dT%H%M%S}~{job.interval.end:%Y%m%dT%H%M%S}"
    asked = job.as_dict()
    asked["tail"] = asked.pop("read_from")  # the field's name in landings of every version
    del asked["known"]  # what the job knew does not matter to a reader of its answer
    del asked["unread"]
    header = {
        "kind": "fetch",
        **asked,
        **run,
        "read_at": iso(min(page.received_at for page in fetched.pages)),
        "covered": [
            {
                "dataset": c.dataset,
                "start": iso(c.interval.start),
                "end": iso(c.interval.end),
                "reason": c.reason,
                **({} if c.parts is None else {"parts": list(c.parts)}),
            }
            for c in fetched.covered
        ],
        "unread": [
            {
                "dataset": u.dataset,
                "part": u.part,
                "start": iso(u.interval.start),
                "end": iso(u.interval.end),
                "reason": u.reason,
            }
            for u in fetched.unread
        ],
        "part_states": fetched.part_states,
    }
    lines = [
        _line(
            {
                "kind": "page",
                "number": number,
                **{name: value for name, value in asdict(page).items() if name != "read_from"},
                "params": json.dumps(dict(page.params), sort_keys=True),
                "received_at": iso(page.received_at),
                "as_of": iso(page.as_of) if page.as_of else None,
                "lo": iso(page.read_from or job.read_from),
                "hi": iso(job.interval.end),
            },
            secrets,
        )
        for number, page in enumerate(fetched.pages)
    ]
    header["longest"] = max(map(len, lines))  # what a reader needs room for
    partial = inbox / f".{uuid4().hex}.part"
    zstd, raw = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True), io.BytesIO()
    with zstd.stream_writer(raw, closefd=False) as out:
        out.write(_line(header, secrets))
        for line in lines:
            out.write(line)
    data = raw.getvalue()
    name = f"{job.source}~{job.account}~{stamp}~{_digest(data)[:DIGITS]}.jsonl.zst"
    partial.write_bytes(encryption.encrypt(data, key) if key else data)
    return durable.place(partial, inbox / name)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_encrypted(file: Path) -> bool:
    """Whether a landed file is encrypted."""
    with open(file, "rb") as raw:
        return encryption.is_encrypted(raw.read(len(encryption.MAGIC)))


def content(file: Path) -> bytes:
    """A landed file as zstd: decrypted where it is encrypted. Raises Damaged, or EncryptionError."""
    data = file.read_bytes()
    if encryption.is_encrypted(data):
        return encryption.decrypt(data, str(file))
    return data


def _line(record: dict, secrets: tuple[str, ...] = ()) -> bytes:
    if secrets:
        record = {
            name: redact(value, secrets) if isinstance(value, str) else value
            for name, value in record.items()
        }
    # Half a pair of surrogates, which JSON can escape and UTF-8 not write, becomes a question mark:
    # a body has none, but a vendor's id may.
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace") + b"\n"


def header(file: Path) -> dict[str, Any]:
    """The first line of a landed file: what was asked, and what it covers."""
    raw = io.BytesIO(content(file)) if is_encrypted(file) else open(file, "rb")
    with raw:
        return _header(raw)


def _header(raw: BinaryIO) -> dict[str, Any]:
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        return json.loads(io.TextIOWrapper(stream, encoding="utf-8").readline())


def inspect(file: Path, expected: str | None = None) -> str:
    """The digest of a landed file that is as it was written; raises Damaged where it is not.

    It is compared with `expected` and with the name. Where neither is a digest, as in 0.1, all of
    it is read: then a change is noticed that leaves no JSON. Raises EncryptionError where it is
    encrypted, and its key is not known.
    """
    try:
        if not file.stat().st_size:
            raise Damaged("it is empty")
        found = _digest(content(file)) if is_encrypted(file) else durable.digest(file)
    except OSError as error:
        raise Damaged(f"it cannot be read: {error.strerror}") from None
    if not (match := NAME.fullmatch(file.name)):
        raise Damaged("its name is none of a landed file")
    named = match["id"] if len(match["id"]) == DIGITS else None
    if (expected or found) != found or not found.startswith(named or ""):
        raise Damaged(f"it is not what was written: its SHA-256 is {found}")
    if not (expected or named):
        _read_all(file)
    return found


def _read_all(file: Path) -> None:
    """Raise Damaged unless a file is a header and its pages, each a line of JSON."""
    import zstandard

    frame, kinds, rest = zstandard.ZstdDecompressor().decompressobj(), list[Any](), b""
    try:
        with io.BytesIO(content(file)) if is_encrypted(file) else open(file, "rb") as raw:
            while chunk := raw.read(CHUNK):
                *whole, rest = (rest + frame.decompress(chunk)).split(b"\n")
                kinds += [json.loads(line)["kind"] for line in whole]
        if not frame.eof or frame.unused_data or rest:  # a stream reader would not notice
            raise Damaged("its end is missing, or something follows it")
        first = header(file)
    except Damaged:
        raise
    except (zstandard.ZstdError, ValueError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())
        raise Damaged(f"it does not decompress to lines of JSON ({text})") from None
    if kinds[:1] != ["fetch"] or set(kinds[1:]) - {"page"}:
        raise Damaged("it is no header with its pages")
    if lacking := {"source", "account", "read_at", "covered", "tail"} - first.keys():
        raise Damaged(f"its header has no {', '.join(sorted(lacking))}")
    if first["source"] != file.name.split("~")[0]:
        raise Damaged(f"its header is of {first['source']}, its name is not")


def waiting(root: Path) -> Iterator[Path]:
    """Files not loaded yet, oldest name first."""
    yield from sorted((Path(root) / "inbox").glob("*.jsonl.zst"))


def archive(root: Path, files: Iterable[Path]) -> None:
    """Move loaded files out of the inbox; loading them twice would change nothing."""
    folders = set()
    for file in files:
        source, _, _, end = file.name.split("~")[:4]
        folder = durable.folder(Path(root) / source / f"{end[:4]}-{end[4:6]}")
        durable.place(file, folder / file.name, sync_folders=False)
        folders |= {folder, file.parent}
    for folder in folders:
        durable.sync(folder)


def note_load(root: Path, load: Load) -> None:
    """Append one committed batch to the order of loads, durably."""
    _append(durable.folder(Path(root)) / LOADS, _of_load(load))


def note_loads(root: Path, loads: Iterable[Load]) -> str:
    """Write the order of loads again; the name under which what was noted before is kept beside."""
    file, kept = Path(root) / LOADS, f"{LOADS}.before-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    if file.exists():
        durable.write(file.with_name(kept), file.read_bytes())
    durable.write(file, b"".join(map(_of_load, loads)))
    return kept


def _of_load(load: Load) -> bytes:
    record = {
        "sequence": load.sequence,
        "batch_id": load.batch_id,
        "loaded_at": iso(load.loaded_at),
        "files": list(load.files),
        **({"sha256": dict(load.digests)} if load.digests else {}),
    }
    return sealed.seal(record).encode() + b"\n"


def note_openings(root: Path, record: dict[str, Any]) -> None:
    """Append to the opening balances that are fixed, durably: a replay reads them again."""
    key = encryption.for_writing(durable.folder(Path(root)))
    _append(Path(root) / OPENINGS, _of_opening(record, key))


def _of_opening(record: dict[str, Any], key: encryption.Key | None) -> bytes:
    if key:
        frame = encryption.encrypt(json.dumps(record).encode(), key)
        record = {ENCRYPTED: base64.b64encode(frame).decode()}
    return sealed.seal(record).encode() + b"\n"


def openings(root: Path) -> list[dict[str, Any]]:
    """What was noted of opening balances, in order; what cannot be read is passed, and logged.
    Raises EncryptionError where they are encrypted, and their key is not known."""
    notes = _notes(Path(root) / OPENINGS, OF_OPENINGS)
    return [record for record in notes if not isinstance(record, Damaged)]


def _notes(file: Path, fields: frozenset[str]) -> Iterator[dict[str, Any] | Damaged]:
    """The records of a file of notes, or in their place what is wrong with a line: `fields` are
    those each has. What cannot be read is logged, but for half a line that a kill has left and
    that was written again."""
    if not file.exists():
        return
    every = list(sealed.lines(file))
    whole = [text for _, text, record in every if isinstance(record, dict)]
    for number, text, record in every:
        if not isinstance(record, Damaged):
            record = _decrypted(record, file)
        if not isinstance(record, Damaged):
            if fields <= record.keys():
                yield record
                continue
            record = Damaged(f"it has no {', '.join(sorted(fields - record.keys()))}")
        if not any(other.startswith(text) for other in whole):
            log.warning("%s, line %d: %s", file, number, record)
            yield Damaged(f"line {number}: {record}")


def _decrypted(record: dict[str, Any], file: Path) -> dict[str, Any] | Damaged:
    """A record, or the one in it where that is encrypted."""
    if record.keys() != {ENCRYPTED}:
        return record
    try:
        return json.loads(encryption.decrypt(base64.b64decode(record[ENCRYPTED]), str(file)))
    except Damaged as error:
        return error
    except (ValueError, TypeError):
        return Damaged("it is no encrypted record")


def _append(file: Path, line: bytes) -> None:
    is_new = not file.exists()
    with open(file, "ab") as out:
        # A kill may have left half a line: it must not swallow this one.
        out.write(b"\n" + line if _is_torn(Path(out.name)) else line)
        out.flush()
        os.fsync(out.fileno())
    if is_new:
        durable.sync(file.parent)


def _is_torn(file: Path) -> bool:
    with open(file, "rb") as read:
        if read.seek(0, os.SEEK_END) == 0:
            return False
        read.seek(-1, os.SEEK_END)
        return read.read(1) != b"\n"


def loads(root: Path) -> list[Load]:
    """The committed batches in their order, each once; a line that cannot be read is passed, and
    logged."""
    committed: dict[str, Load] = {}
    for record in _notes(Path(root) / LOADS, OF_LOADS):
        if not isinstance(record, Damaged):
            before = committed.get(record["batch_id"])
            committed[record["batch_id"]] = Load(
                record["sequence"],
                record["batch_id"],
                utc(record["loaded_at"]),
                tuple(record["files"]),
                (dict(before.digests) if before else {}) | record.get("sha256", {}),
            )
    return sorted(committed.values(), key=lambda load: load.sequence)


def damaged_notes(root: Path) -> Iterator[tuple[Path, str]]:
    """Lines of loads.jsonl and openings.jsonl that cannot be read: (file, which and why)."""
    for name, fields in ((LOADS, OF_LOADS), (OPENINGS, OF_OPENINGS)):
        file = Path(root) / name
        for record in _notes(file, fields):
            if isinstance(record, Damaged):
                yield file, str(record)


def archived(root: Path) -> dict[str, Path]:
    """Loaded files by name."""
    return {file.name: file for file in sorted(Path(root).glob("*/*/*.jsonl.zst"))}


def rewrite(root: Path, key: encryption.Key | None) -> tuple[int, list[tuple[Path, str]]]:
    """Write what is kept under another key, or none, again under `key` (None: as plain text):
    (files written, those that are damaged and stay, with the reason).

    Each file is replaced by one rename, under its name: killed anywhere, run again, it goes on. The
    caller holds the warehouse, so that no file moves. Raises EncryptionError before anything is
    written where the key of a file is not known.
    """
    root, wanted = Path(root), key.id if key else ""
    files = [
        *waiting(root),
        *archived(root).values(),
        *sorted(root.glob("quarantine/*.jsonl.zst*")),
    ]
    files = [file for file in files if not file.name.endswith(".reason")]
    stale, damaged, written = [], [], 0
    for file in files:
        try:
            named = _key_id(file)
        except Damaged as error:
            damaged.append((file, str(error)))
            continue
        if named and named not in encryption.known():
            raise encryption.missing(str(file), named)
        stale += [file] if named != wanted else []
    notes = [*_notes(root / OPENINGS, OF_OPENINGS)]
    if key:
        encryption.note(root, key)
    for file in stale:
        try:
            data = content(file)
        except Damaged as error:
            damaged.append((file, str(error)))
            continue
        durable.write(file, encryption.encrypt(data, key) if key else data)
        written += 1
    if notes and not any(isinstance(each, Damaged) for each in notes):
        lines = [_of_opening(each, key) for each in notes if not isinstance(each, Damaged)]
        durable.write(root / OPENINGS, b"".join(lines))
    elif notes:
        damaged.append((root / OPENINGS, "a line of it cannot be read, so it stays as it is"))
    if not key:
        encryption.note(root, None)
    return written, damaged


def _key_id(file: Path) -> str:
    """The id of the key of a landed file; '' where it is plain text."""
    with open(file, "rb") as raw:
        head = raw.read(encryption.HEAD)
    return encryption.key_id(head) if encryption.is_encrypted(head) else ""
