"""The landing: files of API responses exactly as received, written once, never changed.

One file a fetch, `<source>~<account>~<start>~<end>~<id>.jsonl.zst`: a header line (what was
asked, what it covers and why paging ended), then a line a page with the body as text. A file
appears by one rename after its fetch has ended, so whatever is seen is complete (of a fetch that
was stopped for its cost the header covers what was read whole). New files
wait in `inbox/`; the loader moves them to `<source>/<YYYY-MM>/` once they are committed, and
notes in `loads.jsonl` which files it committed together, and in which order; the transform, in
`openings.jsonl`, which opening balances it has fixed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from extract.core import durable
from extract.core.interval import iso, utc
from extract.core.redact import redact
from extract.core.source import Fetched, Job

LEVEL = 6  # zstd: 3 costs 12 % more bytes, 12 costs three times the CPU (debank pages)


@dataclass(frozen=True)
class Load:
    """One committed batch: its place in the order of loads, and its files by name."""

    sequence: int
    batch_id: str
    loaded_at: datetime
    files: tuple[str, ...]


def write(
    root: Path, job: Job, fetched: Fetched, run: dict[str, Any], secrets: tuple[str, ...] = ()
) -> Path:
    """Land one whole fetch; `run` says which run made it (dag_id, run_id, …). Returns the file.

    `secrets` are redacted wherever a vendor has echoed them.
    """
    import zstandard

    inbox = durable.folder(Path(root) / "inbox")
    stamp = f"{job.interval.start:%Y%m%dT%H%M%S}~{job.interval.end:%Y%m%dT%H%M%S}"
    name = f"{job.source}~{job.account}~{stamp}~{uuid4().hex[:12]}.jsonl.zst"
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
    partial = inbox / f".{name}.part"
    with (
        open(partial, "wb") as raw,
        zstandard.ZstdCompressor(level=LEVEL).stream_writer(raw, closefd=False) as out,
    ):
        out.write(_line(header, secrets))
        for line in lines:
            out.write(line)
    return durable.place(partial, inbox / name)


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
    import io

    import zstandard

    with open(file, "rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        return json.loads(io.TextIOWrapper(stream, encoding="utf-8").readline())


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
    line = _line(
        {
            "sequence": load.sequence,
            "batch_id": load.batch_id,
            "loaded_at": iso(load.loaded_at),
            "files": list(load.files),
        }
    )
    _append(Path(root) / "loads.jsonl", line)


def note_openings(root: Path, record: dict[str, Any]) -> None:
    """Append to the opening balances that are fixed, durably: a replay reads them again."""
    _append(durable.folder(Path(root)) / "openings.jsonl", _line(record))


def openings(root: Path) -> list[dict[str, Any]]:
    """What was noted of opening balances, in order; half a line a kill has left is passed."""
    file, records = Path(root) / "openings.jsonl", []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


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
    """The committed batches in their order, each once; half a line a kill has left is passed."""
    committed: dict[str, Load] = {}
    file = Path(root) / "loads.jsonl"
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        committed[record["batch_id"]] = Load(
            record["sequence"], record["batch_id"], utc(record["loaded_at"]), tuple(record["files"])
        )
    return sorted(committed.values(), key=lambda load: load.sequence)


def archived(root: Path) -> dict[str, Path]:
    """Loaded files by name."""
    return {file.name: file for file in sorted(Path(root).glob("*/*/*.jsonl.zst"))}
