"""An account whose running balances break is held back, with the row named; the others are not."""

from __future__ import annotations

import random
from argparse import Namespace
from datetime import timedelta

import pytest

import extract.sources
from ledgerhouse.operate.commands import breaks, warehouse
from ledgerhouse.publish.books import open_books
from ledgerhouse.publish.gate import NotChecked, check_and_publish
from ledgerhouse.publish.publish import publish_news
from ledgerhouse.transform.touched_days import marks_of, transform
from ledgerhouse.warehouse.connection import open_warehouse
from tests.helpers.ledger_bank import END, SOURCE, START, Bank, ledger

pytestmark = pytest.mark.slow
DAY = timedelta(days=1)


@pytest.fixture
def var(tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(tmp_path / "accounts.toml"))
    (tmp_path / "accounts.toml").write_text("")
    known = extract.sources.all_sources
    for module in ("ledgerhouse.check.run", "extract.sources"):
        monkeypatch.setattr(f"{module}.all_sources", lambda: known() | {"ledgerbank": SOURCE})
    return tmp_path


class Books:
    """Syncs of accounts into the warehouse of `var`, checked and published."""

    def __init__(self, var):
        self.var, self.runs = var, 0

    def sync(self, accounts, **more):
        self.runs += 1
        bank = Bank(self.var / "landing", str(self.var / "warehouse.duckdb"))
        bank.read = self.runs * 10
        for account, rows in accounts.items():
            bank.land(rows, account, **more)
        bank.load()
        bank.con.close()
        done = transform(owner="test")
        return check_and_publish(done, run_id=f"run {self.runs}", owner="test")

    def published(self, sql: str) -> list[tuple]:
        with open_books() as con:
            return con.execute(sql).fetchall()


def asked(command, capsys) -> tuple[int, str]:
    code = command(Namespace(output="table", source=None, account=None))
    return code, " ".join(capsys.readouterr().out.split())


def test_a_break_holds_its_account_alone_is_shown_everywhere_and_heals(var, capsys):
    rng, books = random.Random(5), Books(var)
    good, bad = ledger(rng), ledger(rng)
    cut = START + 9 * DAY
    assert books.sync({"good": good, "bad": bad}, end=cut).held == ()
    victim = next(row for row in bad if row.ts > cut + DAY)
    short = [row for row in bad if row is not victim]
    done = books.sync({"good": good, "bad": short}, start=cut)
    (held,) = done.held
    assert (held.account, held.reason) == ("bad", "raw.exchanges_ledger running_balances_follow")
    newest = dict(books.published("SELECT account, max(ts) FROM raw.exchanges_ledger GROUP BY 1"))
    assert newest["good"] == good[-1].ts and newest["bad"] < cut
    ((account, wallet, step, suspect, calls),) = books.published(
        "SELECT account, wallet, step_text, suspect, refetch_calls FROM ops.breaks"
    )
    assert (account, wallet, suspect) == ("bad", victim.wallet, "skipped") and calls >= 1
    if step:
        assert step == format(victim.amount.normalize(), "f")
    code, said = asked(breaks.breaks, capsys)
    assert code == 1 and "skipped" in said and "refetch" in said and "[[adjustment]]" not in said
    code, said = asked(warehouse.status, capsys)
    assert code == 1 and "ledgerbank bad: 1 running balances do not follow" in said
    assert "running_balances_follow" in said and "ledgerbank good: " not in said
    pages = [path.read_text() for path in (var / "data_docs").rglob("*.html")]
    assert any("Every running balance follows from the one before it" in page for page in pages)

    # A later run without a row of it holds it still, and publishes the other.
    more = [row for row in good if row.ts >= cut]
    done = books.sync({"good": [*more[:-1]]}, start=cut)
    assert [one.account for one in done.held] == ["bad"]
    assert books.published(
        "SELECT count(*) FROM raw.exchanges_ledger WHERE account = 'good' AND vanished_at IS NOT NULL"
    ) == [(1,)]

    done = books.sync({"good": good, "bad": bad}, start=cut)
    assert done.held == ()
    newest = dict(books.published("SELECT account, max(ts) FROM raw.exchanges_ledger GROUP BY 1"))
    assert newest == {"good": good[-1].ts, "bad": bad[-1].ts}
    assert books.published("SELECT count(*) FROM ops.breaks") == [(0,)]
    with open_warehouse(owner="test") as con:
        assert marks_of(con) == ()


def test_where_every_account_breaks_the_news_say_so(var):
    rng, books = random.Random(6), Books(var)
    rows = ledger(rng)
    books.sync({"only": rows}, end=START + 9 * DAY)
    late = [row for row in rows if row.ts >= START + 9 * DAY]
    with pytest.raises(NotChecked, match="running_balances_follow"):
        books.sync({"only": [*late[:20], *late[30:]]}, start=START + 9 * DAY, end=END)
    with open_warehouse(owner="test") as con:
        publish_news(con, var / "published")
    found = books.published("SELECT DISTINCT account, suspect FROM ops.breaks")
    assert found == [("only", "skipped")]
    assert books.published("SELECT max(ts) < '2026-01-10' FROM raw.exchanges_ledger") == [(True,)]
