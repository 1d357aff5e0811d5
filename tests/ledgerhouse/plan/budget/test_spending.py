"""What was spent, the full refresh it is held against, and the vendor's own count."""

from math import ceil

import pytest

from extract.fetch.call_log import call_log
from extract.fetch.client import Client
from extract.sources import all_sources, get
from ledgerhouse.load import unit_balances
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.plan import spending as spending_of
from sandbox.server import serve
from tests.helpers.books import Books, Hurried, of
from tests.ledgerhouse.plan.budget.scene import (
    HISTORY,
    NOW,
    START,
    TOKENS,
    WALLETS,
    lifted,
)

MINE = of("coinbase") + of("debank")


def synced(books: Books, url, clock: str, run: str, dag: str = "sync") -> None:
    """A run up to `clock`, with its calls in ops.api_calls."""
    url.clock.set(clock)
    before, books.run_id = len(books.calls), run
    books.sync(START, clock, accounts=MINE, snapshot=True)
    with call_log(books.root / "calls", {"dag_id": dag, "run_id": run}) as record:
        for call in books.calls[before:]:
            record(call)
    load_calls(books.con, books.root / "calls")


@pytest.mark.slow
def test_spending_and_the_full_refresh_it_is_held_against(small, tmp_path):
    """Spent: as the sandbox counts. A full refresh: as the stated formula has it of the truth, and
    of Coinbase, whose pages do not overlap, what reading everything again really takes."""
    with serve(small, now=START) as url:
        lifted(url)
        books = Books(url, tmp_path / "books", clock=Hurried())
        spending_of.record(books.con, all_sources().values(), [("debank", "units", "day", 500)])
        synced(books, url, "2024-12-10T00:00:00Z", "h", dag="history")
        synced(books, url, "2024-12-12T00:00:00Z", "backfill__1")
        clocks = ["2024-12-17T06:00:00Z", NOW]
        for number, clock in enumerate(clocks):
            synced(books, url, clock, f"s{number}")
        total = url.app.stats()["total"]
        rows = {
            row[0]: row[1:]
            for row in books.con.execute(
                "SELECT source, sum(calls), sum(units), sum(full_refresh_calls), "
                "sum(full_refresh_units) FROM ops.spending GROUP BY 1"
            ).fetchall()
        }
        assert rows["debank"][:2] == (total["debank"], url.app.apis["debank"].units_spent)
        assert rows["coinbase"][:2] == (total["coinbase"], 0)
        price = get("debank").units
        full = {}
        for number, clock in enumerate(clocks):
            pages = sum(
                ceil(
                    (
                        sum(
                            r["wallet"] == a.account and START <= r["time"]
                            for r in url.world.transactions(clock)
                        )
                        + 1
                    )
                    / 20
                )
                for a in WALLETS
            )
            full["debank", f"s{number}"] = (pages + 3, pages * price[HISTORY] + 3 * price[TOKENS])
            wallets = {}
            for row in url.world.truth("ledger", clock, ["coinbase"]):
                wallets[row["wallet"]] = wallets.get(row["wallet"], 0) + (START <= row["time"])
            known = books.column(
                "SELECT count(DISTINCT wallet) FROM raw.balances WHERE source = 'coinbase'"
            )[0]
            fills = sum(START <= r["time"] for r in url.world.truth("fills", clock, ["coinbase"]))
            lists = sum(max(1, ceil(n / 100)) for n in wallets.values())
            full["coinbase", f"s{number}"] = (
                # The last call lists the products of the fills.
                ceil(known / 100) + lists + known - len(wallets) + ceil((fills + 1) / 100) + 1,
                0,
            )
        assert {
            (s, r): (c, u)
            for s, r, c, u in books.con.execute(
                "SELECT source, run_id, calls, units FROM ops.full_refreshes"
            ).fetchall()
        } == full
        for source in rows:
            assert rows[source][2:] == tuple(
                sum(v[n] for (s, _), v in full.items() if s == source) for n in (0, 1)
            )
        fresh, before = Books(url, tmp_path / "fresh", clock=Hurried()), dict(total)
        for job in fresh.plan(START, NOW, of("coinbase"), snapshot=True):
            fresh.fetch(job)
        again = url.app.stats()["total"]
        assert full["coinbase", "s1"][0] == again["coinbase"] - before["coinbase"]
        assert books.con.execute("FROM ops.budgets").fetchall() == [("debank", "units", "day", 500)]


def test_the_vendors_count_is_kept_beside_ours(small, tmp_path, caplog):
    """Readings of a run come in once, with what fell between them; a wrong price is logged."""
    caplog.set_level("INFO")
    with serve(small, now=NOW, prices={"user/all_history_list": 30}) as url:
        lifted(url)
        books = Books(url, tmp_path, clock=Hurried())
        source, folder = get("debank"), tmp_path / "units"

        def read(run, moment):
            client = Client("debank", WALLETS[0].account, rates={}, units={})
            unit_balances.note(
                folder,
                source="debank",
                connection="c",
                run_id=run,
                moment=moment,
                balance=source.remaining_units(client, books.apis["debank"]),
                accounts=[a.account for a in WALLETS],
            )

        for run, prices in (("r1", {}), ("r2", {HISTORY: 30}), ("r3", {})):
            read(run, "before")
            books.sources["debank"] = type(source)(
                **{**vars(source), "units": {**source.units, **prices}}
            )
            before = len(books.calls)
            for job in books.plan(START, NOW, WALLETS, refetch=True)[:2]:
                books.fetch(job)
            with call_log(tmp_path / "calls", {"dag_id": "sync", "run_id": run}) as record:
                for call in books.calls[before:]:
                    record(call)
            if run == "r3":
                url.app.apis["debank"].balance += 10_000
            read(run, "after")
            load_calls(books.con, tmp_path / "calls")
            for _ in range(2):
                unit_balances.load_unit_balances(books.con, folder, run)
        found = books.con.execute(
            "SELECT run_id, moment, used, counted FROM ops.account_units ORDER BY reading_at"
        ).fetchall()
        assert [row[:2] for row in found] == [
            (r, m) for r in ("r1", "r2", "r3") for m in ("before", "after")
        ]
        used, counted = found[1][2:]
        assert used > counted > 0 and found[3][2] == found[3][3] == used
        assert found[5][2] == used - 10_000
        levels = [r.levelname for r in caplog.records if r.name == "ledgerhouse.load.unit_balances"]
        assert levels == ["WARNING", "INFO", "WARNING"]
        assert "refilled" in caplog.text and '{"units": {endpoint: units}}' in caplog.text
