"""Data Docs: pages of our own that say what was expected and observed, and load nothing from outside."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest

from extract.core.interval import Interval
from ledgerhouse.check import data_docs
from tests.ledgerhouse.check.checkpoints.clean import IN, INTERVAL, run

pytestmark = pytest.mark.slow  # importing Great Expectations alone takes 8 s

OUTSIDE = re.compile(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//|url\(\s*["']?(?:https?:)?//""")
LOADS = re.compile(r"<(?:link|script|img|iframe|object)\b|@import|url\(")
LOADED = re.compile(r"""<(?:link|script|img|a)\b[^>]*?\b(?:src|href)="([^"#]+)\"""")


def test_data_docs_load_nothing_from_outside(warehouse, tmp_path):
    docs = tmp_path / "docs"
    run(
        warehouse(
            "DROP TABLE curated.assets; "
            f"UPDATE raw.exchanges_ledger SET asset = NULL WHERE {IN}; "
            "DELETE FROM curated.tx_unified WHERE txid = 'e6'"
        ),
        docs_dir=docs,
        run_id="manual__2026-01-02T06:00:00+00:00/<b>",
    )
    pages = [docs / "index.html", *docs.glob("runs/*/*.html")]
    assert len(pages) == 1 + 11
    for page in pages:
        html = page.read_text()
        assert not OUTSIDE.search(html), f"{page.name} loads {OUTSIDE.search(html)}"
        for link in LOADED.findall(html):
            assert (page.parent / link).exists(), f"{page.name} links {link}, which is not there"
        assert "<style>" in html and not LOADS.search(html), f"{page.name}: {LOADS.search(html)}"
    index = (docs / "index.html").read_text()
    assert "&lt;b&gt;" in index and "asset_present" in index
    assert {page.suffix for page in docs.rglob("*.*") if page.is_file()} == {".html", ".json"}


def test_data_docs_quote_what_a_stranger_may_name(warehouse, tmp_path):
    evil = "<script>alert(1)</script>"
    docs = tmp_path / "docs"
    results = run(
        warehouse(
            f"UPDATE raw.exchanges_ledger SET kind = '{evil}' WHERE {IN}; "
            f"INSERT INTO curated.assets SELECT '{evil}', 's', 'n', 1 FROM range(2); "
            f"INSERT INTO curated.reconciliation SELECT * REPLACE ('{evil}' AS token, 'off' AS status)"
            " FROM curated.reconciliation"
        ),
        docs_dir=docs,
    )
    assert sum(evil in str(r) for r in results) >= 3
    for page in docs.rglob("*.html"):
        assert evil not in page.read_text(), f"{page.name} would run what a token is called"


def test_data_docs_say_in_words_what_was_expected_and_what_was_observed(warehouse, tmp_path, only):
    """Every expectation with its words, severity and count, and the rows that break it."""
    only("raw.exchanges_ledger")
    docs = tmp_path / "docs"
    rest = Interval("2026-01-02T12:00:00Z", "2026-01-02T12:30:30Z")
    results = run(
        warehouse(
            f"UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE {IN}; "
            "UPDATE raw.exchanges_ledger SET vanished_at = '2026-02-01' WHERE entry_id = 'e2'"
        ),
        Interval("2026-01-02T06:00:00Z", "2026-01-02T12:30:30Z"),
        docs_dir=docs,
        spans=[INTERVAL, rest],
    )
    folder = docs / "runs" / data_docs.folder_of("r1")
    page = (folder / "raw.exchanges_ledger.html").read_text()
    text = unescape(
        re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.S))
    )
    for result in results:
        assert result.description and " — " not in result.description
        assert f"{result.description} {result.expectation}" in text
        assert result.observed in text
    failed, passed = text.index(" Failed "), text.index(" Passed ")
    order = [text.index(f" {r.expectation} ") for r in results if not r.success]
    assert len(order) == 2 and all(failed < place < passed for place in order)
    assert text.index("kind_known") < text.index("nothing_vanished"), "critical before warning"
    assert "critical kind is one of trade" in text and "gift" in text[failed:passed]
    assert "2026-02-01 00:00:00" in text[failed:passed] and "1 critical 1 warning" in text
    assert "2026-01-02 06:00 to 2026-01-02 12:30:30 UTC" in text
    assert "2 spans alone: 2026-01-02 06:00 to 2026-01-02 12:00, 2026-01-02 12:00 to" in text


def test_the_index_lists_runs_that_an_older_version_wrote(warehouse, tmp_path, only):
    """They keep their pages until newer runs take their places."""
    only("raw.balances")
    path, docs = warehouse(), tmp_path / "docs"
    older = docs / "runs" / "older-0a1b2c3d"
    older.mkdir(parents=True)
    (older / "raw.balances.html").write_text("<h1>as it was rendered then</h1>")
    counts = {"passed": 6, "critical": 0, "warning": 1, "info": 0}
    numbers = {
        "run_id": "an older run",
        "start": "2026-01-01T00:00:00Z",
        "end": "2026-01-01T06:00:00Z",
        "checked_at": "2026-01-01T06:01:02.345678Z",
        "tables": {"raw.balances": counts},
        "failed": ["raw.balances: nothing_vanished FAILED (warning): 1 rows"],
    }
    (older / "run.json").write_text(json.dumps(numbers))
    run(path, docs_dir=docs, keep=2)
    index = (docs / "index.html").read_text()
    assert "an older run" in index and "runs/older-0a1b2c3d/raw.balances.html" in index
    assert (older / "raw.balances.html").exists()
    run(path, docs_dir=docs, run_id="r2", keep=2)
    assert "an older run" not in (docs / "index.html").read_text() and not older.exists()


def test_data_docs_keep_the_newest_runs(warehouse, tmp_path, only):
    only("raw.balances")
    path, docs = warehouse(), tmp_path / "docs"
    for run_id in ("a", "b", "c", "a", "d"):
        run(path, docs_dir=docs, run_id=run_id, keep=3)
    kept = {data_docs.folder_of(r) for r in "cad"}
    assert {p.name for p in (docs / "runs").iterdir()} == kept
    index = (docs / "index.html").read_text()
    assert [index.index(data_docs.folder_of(r)) for r in "dac"] == sorted(
        index.index(data_docs.folder_of(r)) for r in "dac"
    )
    with pytest.raises(ValueError, match="keep=0"):
        run(path, docs_dir=docs, keep=0)
