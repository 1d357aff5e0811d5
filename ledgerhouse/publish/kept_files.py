"""Published files that the next books keep: compared with the list of files before they do.

Digests of as many files as BYTES allow, in the order of their names and in turn: a damaged file of
books of 300 MB is met within ten publishes, of small books at the next. It is named, its rows are
written again from the warehouse, and it is put into quarantine. (One that is missing or cut off is
noticed at once: then all is published again, see read_content.)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from extract.core.durable import digest, write
from ledgerhouse.publish.books import File

log = logging.getLogger(__name__)

BYTES = 32 * 2**20  # a publish: SHA-256 takes 0.03 s for them
TURN = "compared.txt"  # the last file compared, where they are too many for one publish


def damaged(root: Path, files: Sequence[File]) -> dict[str, str]:
    """Files that are not as the books list them, by path, and what is wrong; each is logged."""
    wrong = {}
    for file in _turn(root, [file for file in files if file.sha256]):
        if (found := digest(root / file.path)) != file.sha256:
            wrong[file.path] = f"it is not what was published: its SHA-256 is {found}"
            log.error(
                "%s: %s. Its rows are published again from the warehouse",
                root / file.path,
                wrong[file.path],
            )
    return wrong


def _turn(root: Path, files: Sequence[File]) -> list[File]:
    """The files whose turn it is."""
    ordered = sorted(files, key=lambda file: file.path)
    if sum(file.bytes for file in ordered) <= BYTES:
        return ordered
    noted = root / TURN
    last = noted.read_text(errors="replace").strip() if noted.exists() else ""
    after = [file for file in ordered if file.path > last]
    taken, size = list[File](), 0
    for file in [*after, *ordered[: len(ordered) - len(after)]]:
        taken.append(file)
        size += file.bytes
        if size >= BYTES:
            break
    write(noted, f"{taken[-1].path}\n")
    return taken
