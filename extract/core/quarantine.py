"""Quarantine: files that cannot be read are moved aside, with the reason, and stop nothing else.

`<root>/quarantine/<name>` is the file as it was found, `<name>.reason` says in words what is wrong.
Nothing reads them again: look at them, restore the file from a backup where there is one, remove
them when that is done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from extract.core import durable
from extract.core.interval import UTC, iso

log = logging.getLogger(__name__)

FOLDER, REASON = "quarantine", ".reason"


def quarantine(root: Path, file: Path, reason: str) -> Path:
    """Move a file that cannot be read to the quarantine of `root`, and say so; its new place."""
    folder = durable.folder(Path(root) / FOLDER)
    target, number = folder / file.name, 1
    while target.exists():
        number += 1
        target = folder / f"{file.name}.{number}"
    # The reason first: a kill between them leaves the file where the next reader meets it again.
    now = iso(datetime.now(UTC).replace(microsecond=0))
    durable.write(target.with_name(target.name + REASON), f"{reason}\nFound {now} in {file}\n")
    durable.place(file, target)
    log.error(
        "%s cannot be read: %s. It was moved to %s, and everything else goes on without it",
        file.name,
        reason,
        target,
    )
    return target


def quarantined(root: Path) -> Iterator[tuple[Path, str, datetime]]:
    """Files in the quarantine of `root`, by name: (file, reason, when it was found)."""
    for noted in sorted((Path(root) / FOLDER).glob(f"*{REASON}")):
        file = noted.with_name(noted.name.removesuffix(REASON))
        if file.exists():
            reason = noted.read_text(errors="replace").partition("\n")[0]
            yield file, reason, datetime.fromtimestamp(noted.stat().st_mtime, UTC)
