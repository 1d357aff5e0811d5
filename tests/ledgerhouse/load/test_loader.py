"""Laws of the loader: newest reading wins in any order, twice equals once, all or nothing."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from extract.core.interval import Interval, iso, utc
from extract.core.source import Covered, Fetched, Job, Page
from extract.fetch import landing
from extract.sources import all_sources
from extract.sources.coinbase import TRANSACTIONS
from extract.sources.debank import HISTORY
from ledgerhouse.load import loader
from ledgerhouse.load.loader import LoadFailed, load
from ledgerhouse.warehouse import schema
from tests.conftest import page

SOURCES = all_sources()
ZERO = datetime(2025, 6, 1, tzinfo=UTC)
STATES = ("pending", "completed", "canceled")


def entry(number: int, version: int) -> dict:
    """A ledger row; a version is another status and amount, as vendors change them."""
    return {
        "id": f"id-{number}",
        "type": "send",
        "status": STATES[version % 3],
        "created_at": iso(ZERO + timedelta(hours=7 * number)),
        "amount": {"amount": f"{number}.{version:02d}0", "currency": "BTC"},
    }


def transaction(number: int, version: int) -> dict:
    """A transaction whose legs come and go with its version."""
    legs = [
        {"amount": n + version, "token_id": "eth", "from_addr": f"0x{n}"}
        for n in range((number + version) % 4)
    ]
    return {
        "id": f"0x{number}",
        "chain": "eth",
        "cate_id": None,
        "receives": legs,
        "sends": [],
        "time_at": (ZERO + timedelta(hours=7 * number)).timestamp(),
        "tx": {"status": 1, "from_addr": "0xme", "eth_gas_fee": 0.1, "name": f"v{version}"},
    }


# A reading: at what hour of the vendor's clock, and which rows it shows; what it lacks has
# vanished. A row's version grows with the hour.
readings = st.lists(
    st.tuples(st.integers(0, 60), st.sets(st.integers(0, 9), min_size=1)),
    min_size=1,
    max_size=6,
    unique_by=lambda r: r[0],
)


def file_of(kind: str, hour: int, shown: set[int]) -> tuple[Job, Fetched]:
    source = "coinbase" if kind == "ledger" else "debank"
    job = Job(source, "me", source, Interval("2025-01-01", "2026-01-01"), utc("2025-01-01"))
    at = iso(ZERO + timedelta(days=9, hours=hour))
    if kind == "ledger":
        body = page(
            TRANSACTIONS,
            {"data": [entry(n, hour // 20) for n in sorted(shown)]},
            at=at,
            account_id="w",
        )
        datasets = ["exchanges_ledger"]
    else:
        body = page(
            HISTORY, {"history_list": [transaction(n, hour // 20) for n in sorted(shown)]}, at=at
        )
        datasets = ["onchain_transactions", "onchain_transfers"]
    return job, Fetched([body], [Covered(d, job.interval, "test") for d in datasets])


def warehouse():
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'; SET threads = 1")
    schema.create_all(con)
    return con


def content(con, table: str) -> list[tuple]:
    return sorted(
        con.execute(
            f"SELECT * EXCLUDE (first_seen_at, changed_at, batch_id) FROM raw.{table}"
        ).fetchall()
    )


@pytest.mark.slow
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(kind=st.sampled_from(["ledger", "chain"]), shown=readings, data=st.data())
def test_newest_reading_wins_in_any_order_and_batching_and_twice_equals_once(
    kind, shown, data, tmp_path_factory
):
    truth: dict[int, int] = {}
    for hour, rows in sorted(shown):
        truth |= dict.fromkeys(rows, hour // 20)
    live = max(shown)[1]
    order = data.draw(st.permutations(shown))
    order += data.draw(st.lists(st.sampled_from(order), max_size=2))  # some are loaded twice
    con, root = warehouse(), tmp_path_factory.mktemp("landing")
    for hour, rows in order:
        landing.write(root, *file_of(kind, hour, rows), {"run_id": "r"})
        if data.draw(st.booleans(), label="load now"):
            load(con, root, SOURCES)
    load(con, root, SOURCES)
    if kind == "ledger":
        assert sorted(
            con.execute(
                "SELECT entry_id, status, amount_text, vanished_at IS NULL "
                "FROM raw.exchanges_ledger"
            ).fetchall()
        ) == sorted(
            (e["id"], e["status"], e["amount"]["amount"], n in live)
            for n, e in ((n, entry(n, v)) for n, v in truth.items())
        )
    else:
        legs = con.execute(
            "SELECT tx_id, leg, amount, vanished_at IS NULL FROM raw.onchain_transfers"
        ).fetchall()
        assert sorted(legs) == sorted(
            (t["id"], i, Decimal(leg["amount"]), n in live)
            for n, t in ((n, transaction(n, v)) for n, v in truth.items())
            for i, leg in enumerate(t["receives"], 1)
        )
        assert sorted(
            con.execute(
                "SELECT tx_id, method, vanished_at IS NULL FROM raw.onchain_transactions"
            ).fetchall()
        ) == sorted((f"0x{n}", f"v{v}", n in live) for n, v in truth.items())
    # Every other version that was ever shown is in the history, once.
    versions = {(n, h // 20) for h, rows in shown for n in rows}
    parent = "exchanges_ledger" if kind == "ledger" else "onchain_transactions"
    (kept,) = con.execute(
        f"""
        SELECT count(*) FROM (SELECT DISTINCT key, row_hash FROM raw.history WHERE dataset = ?) h
        ANTI JOIN raw.{parent} r ON r.row_hash = h.row_hash""",
        [parent],
    ).fetchone()
    assert kept == len(versions) - len(truth)


def test_a_version_seen_between_two_vanishings_and_loaded_late_is_kept(tmp_path):
    con = warehouse()
    for hour, rows in [(8, {0}), (13, {1}), (28, {1}), (22, {0}), (60, {0})]:
        landing.write(tmp_path, *file_of("chain", hour, rows), {"run_id": "r"})
        load(con, tmp_path, SOURCES)
        ((gone, since),) = con.execute(
            "SELECT vanished_at, changed_at FROM raw.onchain_transactions WHERE tx_id = '0x0'"
        ).fetchall()
        assert gone is None or gone > since
    methods = con.execute(
        "SELECT DISTINCT row->>'method' FROM raw.history WHERE dataset = 'onchain_transactions' "
        "AND key LIKE '%0x0%' ORDER BY 1"
    ).fetchall()
    assert methods == [("v0",), ("v1",)]


def test_touched_days_are_exactly_those_that_changed(con, lander):
    one = [
        page(
            TRANSACTIONS,
            {"data": [entry(n, 0) for n in range(20)]},
            account_id="w",
            at="2025-07-01T00:00:00Z",
        )
    ]
    lander(con, "coinbase", "me", one)
    con.execute("DELETE FROM ops.touched_days")
    lander(con, "coinbase", "me", one)
    assert con.execute("FROM ops.touched_days").fetchall() == [], "the same again touches nothing"
    moved = entry(11, 1) | {"created_at": iso(ZERO + timedelta(hours=7 * 11 + 24))}
    again = [
        page(
            TRANSACTIONS,
            {"data": [entry(3, 1), entry(5, 0), moved, entry(77, 0)]},
            account_id="w",
            at="2025-07-02T00:00:00Z",
        )
    ]
    loaded = lander(con, "coinbase", "me", again)
    assert (loaded.new, loaded.changed, loaded.same) == (1, 2, 1)
    days = {d for (d,) in con.execute("SELECT day FROM ops.touched_days").fetchall()}
    at = [ZERO + timedelta(hours=h) for h in (21, 77, 77 + 24, 7 * 77)]
    assert days == {a.date() for a in at}, "of a moved row both days"


def test_pending_becomes_completed_and_the_old_version_is_kept_with_its_text(con, lander):
    for version, at in ((0, "2025-07-01T00:00:00Z"), (1, "2025-07-02T00:00:00Z")):
        lander(
            con,
            "coinbase",
            "me",
            [page(TRANSACTIONS, {"data": [entry(4, version)]}, at=at, account_id="w")],
        )
    assert con.execute(
        "SELECT status, amount_text, is_settled, first_seen_at::VARCHAR, "
        "changed_at::VARCHAR FROM raw.exchanges_ledger"
    ).fetchall() == [("completed", "4.010", True, "2025-07-01 00:00:00", "2025-07-02 00:00:00")]
    ((change, begin, end, row),) = con.execute(
        "SELECT change, valid_from::VARCHAR, valid_to::VARCHAR, row FROM raw.history"
    ).fetchall()
    assert (change, begin, end) == ("changed", "2025-07-01 00:00:00", "2025-07-02 00:00:00")
    old = json.loads(row)
    assert (old["status"], old["amount_text"], old["amount"]) == (
        "pending",
        "4.000",
        "4.000000000000000000",
    )


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


def test_what_was_known_at_any_time_can_be_asked(con, lander):
    """as_of: the row's version by then, and no row before it came or after it went."""
    datasets = ["exchanges_ledger"]

    def read(day: int, *rows):
        lander(
            con,
            "coinbase",
            "me",
            [
                page(
                    TRANSACTIONS,
                    {"data": list(rows)},
                    account_id="w",
                    at=f"2025-07-{day:02d}T00:00:00Z",
                )
            ],
            covered=datasets,
        )

    read(1, entry(1, 0), entry(2, 0))
    read(2, entry(1, 1), entry(2, 0))
    read(3, entry(1, 1))  # 2 has vanished
    read(5, entry(1, 1), entry(2, 1))  # and is there again, completed
    read(4, entry(1, 1))  # met late: says nothing new
    known = {
        day: con.execute(
            "SELECT entry_id, status FROM raw.exchanges_ledger_as_of(?::TIMESTAMP)ORDER BY ALL",
            [f"2025-07-{day:02d} 12:00:00"],
        ).fetchall()
        for day in range(1, 6)
    }
    pending, completed = "pending", "completed"
    assert known == {
        1: [("id-1", pending), ("id-2", pending)],
        2: [("id-1", completed), ("id-2", pending)],
        3: [("id-1", completed)],
        4: [("id-1", completed)],
        5: [("id-1", completed), ("id-2", completed)],
    }
    assert con.execute(
        "SELECT change, changed_by_run FROM ops.changes ORDER BY valid_to"
    ).fetchall() == [("changed", "test"), ("vanished", "test")]
    assert con.execute(
        "SELECT count(*) FROM raw.exchanges_ledger WHERE vanished_at IS NOT NULL"
    ).fetchone() == (0,)


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
