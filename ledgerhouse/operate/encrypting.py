"""All that is kept, written again as the setting says: under the key that is set, or in plain text.

    encrypt(var, …) -> Rewritten      turning encryption on, changing its key, turning it off

Each part is replaced by renames and can be done again: killed anywhere, what was not done yet is
read with the key it was written under, and the next call goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from extract.fetch import archives, encryption, landing
from extract.fetch.encryption import KEY, OLD_KEYS, EncryptionError
from ledgerhouse.publish.reencrypt import reencrypt
from ledgerhouse.transform.rebuild import DiskFull
from ledgerhouse.warehouse import encrypted
from ledgerhouse.warehouse.compaction import rewrite
from ledgerhouse.warehouse.connection import connected, hold, require_not_lost

FILE = "warehouse.duckdb"


@dataclass(frozen=True)
class Rewritten:
    """What was written: landed files, published files, and whether the warehouse was.

    damaged   files that cannot be read, with the reason: they are as they were
    left      files of other makers that are as they were: older warehouses that were kept
    """

    landed: int
    published: int
    warehouse: bool
    damaged: tuple[tuple[str, str], ...]
    left: tuple[str, ...]


def encrypt(
    var: Path, *, off: bool, owner: str, tell: Callable[[str], None] = lambda words: None
) -> Rewritten:
    """Write landing, warehouse and books in `var` again; holds the warehouse meanwhile.

    `off`: as plain text. Raises EncryptionError, before anything is written, where a key is missing;
    BooksDamaged or DiskFull where the books or the warehouse cannot be written again.
    """
    key = encryption.current()
    if off and key:
        raise EncryptionError(
            f"{KEY} is set, so what is written next would be encrypted again: put the key into "
            f"{OLD_KEYS} and leave {KEY} out, for all processes. Nothing was changed"
        )
    if not off and not key:
        raise EncryptionError(
            f"no key is set: put it into {KEY} ({encryption.HOW}). Nothing was changed"
        )
    var = Path(var)
    warehouse, root = var / FILE, var / "landing"
    with hold(warehouse, owner):
        require_not_lost(warehouse)
        _require_keys(var)
        tell("the landing")
        left = archives.unpack(root, key) if root.exists() else {}
        landed, damaged = landing.rewrite(root, key) if root.exists() else (0, [])
        damaged += [(Path(name), why) for name, why in left.items()]
        written = warehouse.exists() and _is_stale(warehouse)
        if written:
            tell("the warehouse")
            if not rewrite(warehouse, warehouse.stat().st_size):
                raise DiskFull(f"{warehouse} was not written again: there is no room for its copy")
        published = reencrypt(var / "published", tell)
    return Rewritten(
        landed,
        published,
        written,
        tuple((str(file), why) for file, why in damaged),
        tuple(str(file) for file in sorted(var.glob(f"{FILE}.before-*"))),
    )


def _require_keys(var: Path) -> None:
    """Open everything once: what cannot be is to stop all, not the second half."""
    from ledgerhouse.publish.books import BOOKS, read_content

    if (var / FILE).exists():
        with connected(var / FILE, read_only=True):
            pass
    if (var / "published" / BOOKS).exists():
        read_content(var / "published")


def _is_stale(path: Path) -> bool:
    """Whether a file is not as the setting says; one under an old key is opened by no other."""
    key = encryption.current()
    if not encrypted.is_encrypted(path):
        return key is not None
    return key is None or not encrypted.opens(path, key)
