"""One odd thing in an account: a record without a place, a part that is not read, or cannot be."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import permutations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.interval import Interval, utc
from extract.core.source import Covered, Fetched, Job, Page, Unread
from extract.fetch import landing
from extract.sources import all_sources
from extract.sources.coinbase import TRANSACTIONS
from extract.sources.debank import HISTORY
from ledgerhouse.load.loader import load
from ledgerhouse.load.replay import replay
from ledgerhouse.warehouse import schema
from tests.conftest import page

START, END = utc("2026-01-01"), utc("2026-02-01")
DAY = timedelta(days=1)
WALLETS = ("w1", "w2", "w3")


def fresh() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    schema.create_all(con)
    return con


def entry(number: int, day: int = 1, **more) -> dict:
    moment = f"2026-01-{day:02d}T10:00:00Z"
    return {"id": f"e{number}", "type": "send", "status": "completed", "created_at": moment,
            "amount": {"amount": f"{number}.5", "currency": "BTC"}} | more  # fmt: skip


def listed(wallet: str, *entries: dict, at: str = "2026-02-01T00:00:00Z", **more) -> Page:
    return page(TRANSACTIONS, {"data": list(entries)}, at=at, account_id=wallet, **more)


def land(root, pages, *, covered=(), unread=(), states=None, end=END) -> None:
    job = Job("coinbase", "me", "coinbase", Interval(START, end), START)
    fetched = Fetched(list(pages), list(covered), list(unread), dict(states or {}))
    landing.write(root, job, fetched, {"run_id": "r"})


def whole(end=END, parts=None, start=START) -> Covered:
    return Covered("exchanges_ledger", Interval(start, end), "test", parts)


def live(con) -> set[str]:
    return {
        row[0]
        for row in con.execute(
            "SELECT entry_id FROM raw.exchanges_ledger WHERE vanished_at IS NULL"
        ).fetchall()
    }


BAD = (
    {"id": None},
    {"created_at": None},
    {"created_at": "yesterday"},
    {"created_at": "2026-02-30T00:00:00Z"},
)
RECORDS = st.lists(
    st.one_of(
        st.builds(entry, st.integers(1, 4), st.integers(1, 3)),
        st.builds(lambda n, odd: entry(n) | odd, st.integers(5, 7), st.sampled_from(BAD)),
        st.sampled_from([None, "text", 5, []]),
        st.builds(entry, st.integers(8, 9), st.just(31)).map(
            lambda e: e | {"created_at": "2026-03-01T00:00:00Z"}  # past the interval
        ),
    ),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_every_record_is_a_row_or_shadowed_or_rejected(tmp_path_factory, batches):
    """Counted by Python from the pages: nothing is dropped in silence."""
    root, con = tmp_path_factory.mktemp("landing"), fresh()
    pages = [listed("w1", *records) for records in batches]
    land(root, pages, covered=[whole()])
    load(con, root, all_sources())
    every = [r for records in batches for r in records]
    good = [r for r in every if isinstance(r, dict) and r["id"] and r["created_at"] not in
            (None, "yesterday", "2026-02-30T00:00:00Z")]  # fmt: skip
    inside = [r for r in good if r["created_at"] < "2026-02"]
    bad = len(every) - len(good)
    ((rows, read, shadowed, rejected),) = con.execute(
        "SELECT rows, read, shadowed, rejected FROM ops.batches WHERE dataset = 'exchanges_ledger'"
    ).fetchall()
    assert read == rows + shadowed + rejected == len(inside) + bad
    assert rejected == bad and rows == len({r["id"] for r in inside})
    kept = con.execute("SELECT payload, reason FROM raw.rejected").fetchall()
    texts = {json.dumps(r) for r in every if r not in good}
    assert len(kept) == len({json.dumps(json.loads(t)) for t in texts}) and all(
        reason for _, reason in kept
    )
    assert {row[0] for row in con.execute("SELECT entry_id FROM raw.exchanges_ledger").fetchall()} == {r["id"] for r in inside}  # fmt: skip


def test_a_bad_record_is_kept_once_and_keeps_no_other_from_the_books(tmp_path, caplog):
    con = fresh()
    for _ in range(3):  # as three syncs with their lookback do
        land(tmp_path, [listed("w1", entry(1), entry(2, id=None))], covered=[whole()])
        load(con, tmp_path, all_sources())
    assert live(con) == {"e1"}
    ((reason, file, item),) = con.execute("SELECT reason, file, item FROM raw.rejected").fetchall()
    assert reason == "it has no entry_id" and file.startswith("coinbase~me~") and item == 2
    assert "have no place in raw.exchanges_ledger: it has no entry_id" in caplog.text


def test_a_transaction_without_a_time_takes_its_legs_with_it(tmp_path):
    con = fresh()
    leg = {"amount": 1.0, "token_id": "eth", "from_addr": "x"}
    rows = [{"id": f"0x{n}", "chain": "eth", "time_at": at, "sends": [], "receives": [leg],
             "tx": None} for n, at in enumerate((None, 1767261600.0))]  # fmt: skip
    job = Job("debank", "0x1", "debank", Interval(START, END), START)
    landing.write(tmp_path, job, Fetched([page(HISTORY, {"history_list": rows})]), {"run_id": "r"})
    load(con, tmp_path, all_sources())
    for table in ("onchain_transactions", "onchain_transfers"):
        assert con.execute(f"SELECT count(*) FROM raw.{table}").fetchone() == (1,)
        assert con.execute(
            "SELECT count(*) FROM raw.rejected WHERE dataset = ?", [table]
        ).fetchone() == (1,)


def test_rows_vanish_only_from_parts_that_were_read(tmp_path):
    """Loaded one after the other, or together in any order."""
    fetches = [
        # everything is read; then w1 alone, which has lost a row; then w2 alone, unchanged
        ("2026-02-01T01:00:00Z", [("w1", 1, 2), ("w2", 3), ("w3", 4)], None),
        ("2026-02-01T02:00:00Z", [("w1", 1)], ("w1",)),
        ("2026-02-01T03:00:00Z", [("w2", 3)], ("w2",)),
    ]
    for number, order in enumerate([fetches, *permutations(fetches)]):
        root, con = tmp_path / str(number), fresh()
        for at, wallets, parts in order:
            pages = [listed(w, *map(entry, rows), at=at) for w, *rows in wallets]
            land(root, pages, covered=[whole(parts=parts)])
            if number == 0:
                load(con, root, all_sources())
        load(con, root, all_sources())
        assert live(con) == {"e1", "e3", "e4"}, order


def test_where_no_part_was_read_the_time_is_covered_and_no_row_vanishes(tmp_path):
    """Rows that it brings are loaded all the same, and what could not be read stays unread."""
    con, sick = fresh(), [Unread("exchanges_ledger", "w2", Interval(START, END), "404")]
    land(tmp_path, [listed("w1", entry(1), entry(2))], covered=[whole()], unread=sick)
    load(con, tmp_path, all_sources())
    end, at = END + DAY, "2026-02-02T01:00:00Z"
    land(tmp_path, [listed("w1", entry(2), entry(3), at=at)], covered=[whole(end, ())], end=end)
    load(con, tmp_path, all_sources())
    assert live(con) == {"e1", "e2", "e3"}
    assert [row[0] for row in unread(con)] == ["w2"]
    (until,) = con.execute("SELECT max(end_ts)::DATE::VARCHAR FROM ops.coverage").fetchone()
    assert until == "2026-02-02"


def test_rows_of_a_part_that_could_not_be_read_stay(tmp_path):
    con, sick = fresh(), [Unread("exchanges_ledger", "w2", Interval(START, END), "404")]
    land(tmp_path, [listed("w1", entry(1)), listed("w2", entry(2))], covered=[whole()])
    load(con, tmp_path, all_sources())
    at = "2026-02-01T06:00:00Z"
    land(tmp_path, [listed("w1", entry(1), at=at)], covered=[whole(parts=("w1",))], unread=sick)
    load(con, tmp_path, all_sources())
    assert live(con) == {"e1", "e2"}


def unread(con) -> list[tuple]:
    return con.execute(
        "SELECT part, start_ts::VARCHAR, end_ts::VARCHAR, reason, first_tried_at::VARCHAR "
        "FROM ops.unread_parts ORDER BY ALL"
    ).fetchall()


def test_an_unread_part_is_known_from_when_on_until_it_is_read(tmp_path):
    con = fresh()
    for day, end in ((1, END), (2, END + DAY)):
        at = f"2026-02-{day:02d}T06:00:00Z"
        sick = [Unread("exchanges_ledger", "w2", Interval(START, end), f"HTTP 50{day}")]
        land(tmp_path, [listed("w1", entry(1), at=at)], covered=[whole(end, ("w1",))],
             unread=sick, states={"w1": "1"}, end=end)  # fmt: skip
        load(con, tmp_path, all_sources())
    assert unread(con) == [("w2", "2026-01-01 00:00:00", "2026-02-02 00:00:00", "HTTP 502",
                            "2026-02-01 06:00:00")]  # fmt: skip
    assert con.execute("SELECT part, state FROM ops.part_states").fetchall() == [("w1", "1")]
    at = "2026-02-03T06:00:00Z"
    land(tmp_path, [listed("w2", entry(2), at=at)], end=END + 2 * DAY, states={"w2": "x"},
         covered=[whole(END + 2 * DAY, ("w2",), END + DAY), whole(END + DAY, ("w2",))])  # fmt: skip
    load(con, tmp_path, all_sources())
    assert unread(con) == []
    assert dict(con.execute("SELECT part, state FROM ops.part_states").fetchall()) == {"w1": "1", "w2": "x"}  # fmt: skip


@pytest.mark.parametrize("order", permutations(range(3)))
def test_what_is_known_of_parts_does_not_depend_on_the_order_of_loads(tmp_path, order):
    fetches = (
        ("2026-02-01T01:00:00Z", ("w1",), ["w2"], {"w1": "old"}),
        ("2026-02-01T02:00:00Z", ("w1", "w2"), ["w3"], {"w1": "new", "w2": "ok"}),
        ("2026-02-01T03:00:00Z", ("w3",), ["w2"], {"w3": "ok"}),
    )
    con = fresh()
    for number in order:
        at, parts, failed, states = fetches[number]
        sick = [Unread("exchanges_ledger", w, Interval(START, END), at) for w in failed]
        pages = [listed(w, entry(int(w[1])), at=at) for w in parts]
        land(tmp_path, pages, covered=[whole(parts=parts)], unread=sick, states=states)
        load(con, tmp_path, all_sources())
    assert [row[0] for row in unread(con)] == ["w2"]
    states = dict(con.execute("SELECT part, state FROM ops.part_states").fetchall())
    states.pop("w2", None)  # what is unread is not taken as known, whatever was read of it before
    assert states == {"w1": "new", "w3": "ok"}


def test_a_replay_knows_the_same_of_parts_and_rejected_records(tmp_path):
    path, root = tmp_path / "warehouse.duckdb", tmp_path / "landing"
    with duckdb.connect(str(path)) as con:
        schema.create_all(con)
        sick = [Unread("exchanges_ledger", "w2", Interval(START, END), "404")]
        land(root, [listed("w1", entry(1), entry(2, created_at="never"))], unread=sick,
             covered=[whole(parts=("w1",))], states={"w1": "1"})  # fmt: skip
        load(con, root, all_sources())
        wanted = [con.execute(f"FROM {t}").fetchall() for t in ("ops.unread_parts", "ops.part_states", "raw.rejected")]  # fmt: skip
    assert all(wanted)
    assert replay(path, root, all_sources()).differences == {}
    with duckdb.connect(str(path)) as con:
        assert wanted == [con.execute(f"FROM {t}").fetchall() for t in ("ops.unread_parts", "ops.part_states", "raw.rejected")]  # fmt: skip
