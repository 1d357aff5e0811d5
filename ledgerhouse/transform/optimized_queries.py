"""SQLMesh's cache of optimized queries, of which a process reads each entry once.

Whenever SQLMesh gets the snapshots of an environment it unpickles the optimized query of each
model, without forked workers even twice: a fifth of the CPU of a transform of one day, and a
transform that books adjustments gets them again. The name of an entry is a hash of its model, so
what was read under a name holds for the whole process.

Semi-internal to SQLMesh (0.236.4): `OptimizedQueryCache._file_cache`, held by
tests/ledgerhouse/transform/test_optimized_queries.py.
"""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def keep_optimized_queries() -> None:
    """Have this process keep the optimized queries it reads or makes. Idempotent."""
    from sqlmesh.core.model.cache import OptimizedQueryCache, OptimizedQueryCacheEntry
    from sqlmesh.utils.cache import FileCache

    entries: dict[str, OptimizedQueryCacheEntry] = {}

    class KeptEntries(FileCache[OptimizedQueryCacheEntry]):
        def get(self, name: str, entry_id: str = "") -> OptimizedQueryCacheEntry | None:
            entry = entries.get(name)
            if entry is None and (entry := super().get(name, entry_id)) is not None:
                entries[name] = entry
            return entry

        def put(self, name: str, entry_id: str = "", *, value: OptimizedQueryCacheEntry) -> None:
            super().put(name, entry_id, value=value)
            entries[name] = value

        def exists(self, name: str, entry_id: str = "") -> bool:
            return name in entries or super().exists(name, entry_id)

    def init(self: OptimizedQueryCache, path: Path) -> None:
        self.path = path
        self._file_cache = KeptEntries(path, prefix="optimized_query")

    OptimizedQueryCache.__init__ = init
