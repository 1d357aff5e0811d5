"""A process reads each optimized query of SQLMesh's cache once."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from datetime import datetime

import pytest

from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import transform
from tests.helpers.recomputed import assert_curated_is_the_truth, load_batch, opened

pytestmark = pytest.mark.slow


def test_of_several_transforms_no_entry_is_read_again(planned, tmp_path, monkeypatch):
    from sqlmesh.utils.cache import FileCache  # takes seconds, and every worker collects

    read, get = Counter[str](), FileCache.get

    def counted(self, name, entry_id=""):
        if self._path.name == "optimized_query":
            read[name] += 1
        return get(self, name, entry_id)

    monkeypatch.setattr(FileCache, "get", counted)  # the file's own: what is kept does not get here
    shutil.copytree(planned, tmp_path / "var")
    for number in range(2):
        with opened(tmp_path / "var" / FILE) as con:
            load_batch(con, random.Random(number), datetime(2077, 2, 20), number)
        transform(tmp_path / "var" / FILE, owner="test")
        assert_curated_is_the_truth(tmp_path / "var" / FILE)
    assert max(read.values(), default=1) == 1, read
