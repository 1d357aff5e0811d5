"""Published files that a publish keeps are compared with their digests, in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from extract.core.durable import digest
from extract.core.quarantine import quarantined
from ledgerhouse.publish import kept_files
from ledgerhouse.publish.books import open_books, read_content
from ledgerhouse.publish.publish import publish
from tests.ledgerhouse.publish.scene import contents, months, published


def spoil(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "table", ["curated.tx_unified", "curated.daily_balances", "ops.api_calls", "curated.assets"]
)
def test_a_damaged_file_is_named_and_written_again_instead_of_kept(con, tmp_path, table):
    root = tmp_path / "published"
    first = publish(con, root, [])
    file = [f for f in first.files if f.table_name == table][0]
    spoil(root / file.path)
    done = publish(con, root, [])
    assert done.damaged == (file.path,)
    assert file.month in {f.month for f in done.files if f.table_name == table}
    if table == "curated.tx_unified":
        assert months(done, table) == ["01"], "and no other of it"
    assert published(root) == contents(con)
    ((aside, why, _),) = quarantined(tmp_path)
    assert aside.name == Path(file.path).name and file.path in why
    assert publish(con, root, []).damaged == ()


def test_many_files_are_compared_in_turn(con, tmp_path, monkeypatch):
    root = tmp_path / "published"
    publish(con, root, [])
    monkeypatch.setattr(kept_files, "BYTES", 10_000)
    compared = []
    monkeypatch.setattr(kept_files, "digest", lambda path: compared.append(path) or digest(path))
    with open_books(root) as books:
        files = [(root / path) for (path,) in books.execute(
            "SELECT path FROM published_files").fetchall()]  # fmt: skip
    kept = read_content(root).files
    turns = 0
    while not compared or set(compared) != set(files):
        before = len(compared)
        assert kept_files.damaged(root, kept) == {}
        assert (
            0
            < sum(p.stat().st_size for p in compared[before:])
            < 10_000 + max(p.stat().st_size for p in files)
        )
        turns += 1
        assert turns <= len(files)
    assert turns > 2 and len(compared) < 2 * len(files)
    (root / "compared.txt").write_bytes(b"\xff\x00 nonsense")
    assert kept_files.damaged(root, kept) == {}, "a damaged note begins again from the first"
