"""Loading landed files: amounts as text, whole batches or nothing, and of bounded size."""

import json
from datetime import timedelta
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.core.interval import Interval, iso, utc
from extract.core.source import Covered, Fetched, Job, Page
from extract.fetch import landing
from extract.sources.coinbase import TRANSACTIONS
from extract.sources.debank import HISTORY
from ledgerhouse.load import loader
from ledgerhouse.load.loader import LoadFailed, load
from tests.conftest import page
from tests.helpers.readings import SOURCES, entry, file_of, warehouse


def test_amounts_keep_the_wires_text_and_what_does_not_fit_is_null(con, lander):
    texts = [
        "1e+24",
        "16179.999999999998",
        "0.123456789012345678901",
        "100.10",
        "5E-7",
        "123456789012345678901",
    ]
    legs = ", ".join(
        f'{{"amount": {t}, "token_id": "t{n}", "from_addr": "x"}}' for n, t in enumerate(texts)
    )
    body = (
        f'{{"history_list": [{{"id": "0x1", "chain": "eth", "time_at": 1750000000.0, "sends":'
        f' [], "name": "a \\":5, b", "receives": [{legs}], "tx": null}}]}}'
    )
    lander(con, "debank", "me", [page(HISTORY, body)])
    found = con.execute("SELECT amount_text, amount FROM raw.onchain_transfers ORDER BY token")
    assert found.fetchall() == [
        ("1e+24", None),
        ("16179.999999999998", Decimal("16179.999999999998")),
        ("0.123456789012345678901", Decimal("0.123456789012345679")),
        ("100.10", Decimal("100.1")),
        ("5E-7", Decimal("5E-7")),
        ("123456789012345678901", None),
    ]


def test_no_column_of_a_raw_table_is_a_float(con):
    floats = con.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE "
        "NOT internal AND data_type IN ('DOUBLE', 'FLOAT', 'DECIMAL(18,3)')"
    ).fetchall()
    assert floats == []


def test_rows_outside_the_interval_belong_to_another_fetch(con, lander):
    body = page(TRANSACTIONS, {"data": [entry(n, 0) for n in range(10)]}, account_id="w")
    lander(con, "coinbase", "me", [body], start="2025-06-01T07:00:00Z", end="2025-06-01T21:00:00Z")
    assert con.execute("SELECT entry_id FROM raw.exchanges_ledger ORDER BY 1").fetchall() == [
        ("id-1",),
        ("id-2",),
    ]


def test_a_batch_that_fails_leaves_nothing_and_its_file_waits(con, lander, tmp_path):
    lander(con, "coinbase", "me", [page(TRANSACTIONS, {"data": [entry(1, 0)]}, account_id="w")])
    before = {
        t: con.execute(f"SELECT count(*) FROM {t}").fetchone()
        for t in (
            "raw.exchanges_ledger",
            "ops.coverage",
            "ops.touched_days",
            "ops.batches",
            "raw.history",
        )
    }
    broken = '{"data": [{"id": '  # no fetch would have taken it
    with pytest.raises(LoadFailed, match="(?s)loading coinbase .*JSON.*Nothing of this batch"):
        lander(
            con,
            "coinbase",
            "me",
            [page(TRANSACTIONS, broken, account_id="w")],
            covered=["exchanges_ledger"],
        )
    assert before == {t: con.execute(f"SELECT count(*) FROM {t}").fetchone() for t in before}
    assert len(list(landing.waiting(tmp_path / "landing"))) == 1


def test_a_half_written_file_is_never_seen(tmp_path, monkeypatch):
    job, fetched = file_of("ledger", 0, {1})
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        landing.write(tmp_path, job, fetched, {})
    assert list(landing.waiting(tmp_path)) == []


def test_an_unknown_ledger_type_lands_and_shows(con, lander):
    lander(
        con,
        "coinbase",
        "me",
        [page(TRANSACTIONS, {"data": [entry(1, 1) | {"type": "quantum_rebate"}]}, account_id="w")],
    )
    assert con.execute("SELECT type, kind, is_settled FROM raw.exchanges_ledger").fetchall() == [
        ("quantum_rebate", "unknown", True)
    ]


def test_files_denser_than_the_memory_of_a_batch_are_loaded_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "LEAST_MEMORY", 24 * 2**20)
    monkeypatch.setattr(loader, "MEMORY_A_BYTE", 1)
    whole, tried = loader.load_files, []

    def noted(con, files, sources):
        (limit,) = con.execute("SELECT current_setting('memory_limit')").fetchone()
        tried.append((len(files), limit))
        return whole(con, files, sources)

    monkeypatch.setattr(loader, "load_files", noted)
    for number in range(2):
        start = utc(f"2025-01-0{number + 1}")
        body = json.dumps(
            {
                "data": [
                    {
                        "id": f"{number}-{n}",
                        "type": "send",
                        "status": "completed",
                        "created_at": iso(start),
                        "amount": {"amount": "1", "currency": "BTC"},
                        "note": "so dense " * 1000,
                    }
                    for n in range(1000)
                ]
            }
        )
        job = Job("coinbase", "me", "coinbase", Interval(start, start + timedelta(days=1)), start)
        landing.write(
            tmp_path,
            job,
            Fetched(
                [Page(TRANSACTIONS, {"account_id": "w"}, body, utc("2025-02-01"))],
                [Covered("exchanges_ledger", job.interval, "test")],
            ),
            {"run_id": "r"},
        )
    con = warehouse()
    assert load(con, tmp_path, SOURCES).new == 2000
    assert tried == [(2, "24.0 MiB"), (1, "3.7 GiB"), (1, "3.7 GiB")]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), max_size=40))
def test_a_batch_is_of_one_source_within_its_bounds_and_no_file_is_left_out(sizes):
    waiting = [
        SimpleNamespace(name=f"{source}~{number}", stat=partial(SimpleNamespace, st_size=size))
        for number, (source, size) in enumerate(sorted(sizes))
    ]
    with patch.multiple(loader, BYTES_A_BATCH=20, FILES_A_BATCH=5):
        found = list(loader.batches(waiting))
    assert [file for batch in found for file in batch] == waiting
    weights = [(batch[0].name[0], sum(f.stat().st_size for f in batch)) for batch in found]
    for batch, (source, weight) in zip(found, weights):
        assert {file.name[0] for file in batch} == {source}
        assert len(batch) <= 5 and weight <= 20
    for (one, weight), (other, _), batch, after in zip(weights, weights[1:], found, found[1:]):
        assert one != other or len(batch) == 5 or weight + after[0].stat().st_size > 20
