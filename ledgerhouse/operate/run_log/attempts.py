"""Records of task attempts: one small file when an attempt starts, one when it ends.

An attempt that is killed leaves only the first; the mirror then takes its end from Airflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from extract.core import durable, sealed
from extract.core.interval import UTC
from extract.core.quarantine import quarantine

KEY = ("dag_id", "run_id", "task_id", "map_index", "try_number")


@contextmanager
def attempt(root: Path, attempt_key: Mapping[str, Any], **job: Any) -> Iterator[dict[str, Any]]:
    """Record the attempt around its work; what the body puts into the dict goes into the end.

    `attempt_key` holds the fields of KEY; `job` is source, account, interval_start, interval_end.
    An error is recorded by its text and its class's name, unless the body has put in the
    `error_type` (and `error_fields`) of one that it raises as another.
    """
    known = {key: attempt_key.get(key) for key in KEY} | job
    _write(root, {**known, "state": "running", "started": datetime.now(UTC).isoformat()})
    outcome: dict[str, Any] = {}
    try:
        yield outcome
    except BaseException as error:
        outcome |= {"state": "failed", "error": " ".join(str(error).split())[:500]}
        outcome.setdefault("error_type", type(error).__name__)
        raise
    else:
        outcome["state"] = "success"
    finally:
        _write(root, {**known, **outcome, "ended": datetime.now(UTC).isoformat()})


def _write(root: Path, record: dict[str, Any]) -> None:
    durable.write(Path(root) / f"{uuid4().hex}.json", sealed.seal(record))


def read(
    root: Path, older_than: datetime | None = None
) -> tuple[list[Path], dict[tuple, dict[str, Any]]]:
    """All records not mirrored yet, or those written before `older_than` (aware): their files, and
    what they say of each attempt, by KEY.

    A file that cannot be read goes to quarantine: how that attempt ended, Airflow knows too.
    """
    files, known = list[Path](), {}
    for file in sorted(Path(root).glob("*.json")):
        if older_than and file.stat().st_mtime >= older_than.timestamp():
            continue
        try:
            record = sealed.read(file)
            if lacking := set(KEY) - record.keys():
                raise sealed.Damaged(f"it has no {', '.join(sorted(lacking))}")
        except sealed.Damaged as error:
            quarantine(root, file, str(error))
            continue
        files.append(file)
        key = tuple(record[k] for k in KEY)
        merged = known.setdefault(key, {})
        ended = merged.get("ended") or record.get("ended")
        # The end record knows the state; the two may be read in either order.
        merged.update(
            {
                k: v
                for k, v in record.items()
                if v is not None and (k != "state" or "ended" in record or not ended)
            }
        )
    return files, known
