"""Encrypted landed files as DuckDB reads them: decrypted in memory when it opens them.

    register(con, files); path(file)      read_json(path(file)) then reads either kind

Nothing is written anywhere: a file is decrypted whole, which is its compressed size in memory.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.fetch import landing

if TYPE_CHECKING:
    import duckdb

PROTOCOL = "decrypted"


def path(file: Path) -> str:
    """How DuckDB is to name a landed file."""
    return f"{PROTOCOL}://{file}" if landing.is_encrypted(file) else str(file)


def register(con: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> None:
    """Make the connection read paths of encrypted files, where one of these is."""
    if any(map(landing.is_encrypted, files)) and not con.filesystem_is_registered(PROTOCOL):
        con.register_filesystem(_filesystem())


def _filesystem() -> Any:
    from fsspec import AbstractFileSystem

    class Decrypted(AbstractFileSystem):
        """What DuckDB asks of a file system to read a file by its name."""

        protocol = PROTOCOL
        cachable = False

        def info(self, path: str, **options: Any) -> dict[str, Any]:
            file = Path(str(self._strip_protocol(path)))
            size = len(landing.content(file))
            return {"name": str(file), "size": size, "type": "file"}

        def exists(self, path: str, **options: Any) -> bool:
            return Path(str(self._strip_protocol(path))).exists()

        def glob(self, path: str, **options: Any) -> list[str]:
            return [str(self._strip_protocol(path))]

        def modified(self, path: str) -> Any:
            from datetime import UTC, datetime

            at = Path(str(self._strip_protocol(path))).stat().st_mtime
            return datetime.fromtimestamp(at, UTC)

        def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BytesIO:
            return io.BytesIO(landing.content(Path(str(self._strip_protocol(path)))))

    return Decrypted()
