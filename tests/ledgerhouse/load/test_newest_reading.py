"""The newest reading wins, in any order, and every version before it is kept."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from extract.core.interval import iso
from extract.fetch import landing
from extract.sources.coinbase import TRANSACTIONS
from ledgerhouse.load.loader import load
from tests.conftest import page
from tests.helpers.readings import SOURCES, ZERO, entry, file_of, transaction, warehouse

# A reading: at what hour of the vendor's clock, and which rows it shows; what it lacks has
# vanished. A row's version grows with the hour.
readings = st.lists(
    st.tuples(st.integers(0, 60), st.sets(st.integers(0, 9), min_size=1)),
    min_size=1,
    max_size=6,
    unique_by=lambda r: r[0],
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
