"""The chain law at every load: damage is named, late rows heal it, and a gap is no break."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import duckdb
import pytest

from extract.core.datasets import EXCHANGES_LEDGER
from extract.core.interval import Interval, utc
from extract.core.source import Unread
from ledgerhouse.load.chain_law import RunningRow, chain_law, follow
from ledgerhouse.load.replay import replay
from ledgerhouse.warehouse import schema
from tests.helpers.ledger_bank import END, MS, SOURCES, START, Bank, Row, ledger, without_balance

DAMAGES = ("page", "dropped", "doubled", "sign", "amount", "skipped")
DAY = timedelta(days=1)


def shuffled(rng: random.Random, rows):
    """In the order of a vendor who sorts by time: within an instant in any."""
    rows = list(rows)
    rng.shuffle(rows)
    return sorted(rows, key=lambda row: row.ts)


def damaged(rng: random.Random, rows: list[Row], damage: str) -> tuple[list[Row], list[Row]]:
    """(the rows as the books get them, the rows that are wrong or missing)"""
    place = rng.randrange(len(rows) // 5, len(rows) - len(rows) // 5)
    victim, others = rows[place], [*rows[:place], *rows[place + 1 :]]
    if damage == "page":
        return [*rows[:place], *rows[place + 10 :]], rows[place : place + 10]
    if damage == "dropped":
        return others, [victim]
    if damage == "doubled":
        return [*rows, replace(victim, ident=victim.ident + "-again")], [victim]
    wrong = {
        "sign": replace(victim, amount=-victim.amount),
        "amount": replace(victim, amount=victim.amount + Decimal("0.125")),
        "skipped": replace(victim, status="other"),
    }[damage]
    return [*others, wrong], [victim]


def test_without_damage_nothing_breaks_whatever_is_read_when(tmp_path):
    bank, rng = Bank(tmp_path), random.Random("sound")
    for number in range(12):
        rows, then = ledger(rng), START
        while then < END:  # syncs, with a lookback
            end = min(END, then + timedelta(hours=rng.randint(30, 300)))
            back = max(START, then - timedelta(hours=rng.randint(0, 48)))
            bank.land(shuffled(rng, rows), f"a{number}", then, end, read_from=back)
            then = end
    bank.load()
    assert bank.breaks() == []
    assert bank.con.execute("SELECT count(*) FROM ops.chain_gaps").fetchone() == (0,)
    assert set(bank.states("status", "convention")) == {("proven", "amount")}
    assert len(bank.states("account")) == 48


@pytest.mark.parametrize("in_one", [True, False], ids=["at first", "later"])
def test_fifty_damages_are_named_and_heal(tmp_path, in_one):
    bank, rng = Bank(tmp_path), random.Random(f"damages {in_one}")
    wanted, sound, damages = {}, {}, {}
    for number in range(50):
        rows, damage, account = ledger(rng), DAMAGES[number % 6], f"a{number:02}"
        damages[account], victims = damaged(rng, rows, damage)
        wanted[account], sound[account] = (damage, victims, rows), rows
        if in_one:
            bank.land(shuffled(rng, damages[account]), account)
        else:
            bank.land(shuffled(rng, rows), account, START, victims[0].ts - DAY)
    if not in_one:
        bank.load()
        assert bank.breaks() == []
        for account, (_, victims, _) in wanted.items():
            bank.land(shuffled(rng, damages[account]), account, victims[0].ts - DAY, END)
    bank.load()
    found = bank.breaks("account", "wallet", "token", "ts", "entry_id", "missing_text", "suspect",
                        "suspect_ref")  # fmt: skip
    exact = chains = 0
    for account, (damage, victims, rows) in wanted.items():
        mine = [row for row in found if row[0] == account]
        for chain in {victim.chain for victim in victims}:
            lost = [victim for victim in victims if victim.chain == chain]
            of_chain = [row for row in rows if row.chain == chain]
            after = [row.ts for row in of_chain if row.ts > lost[-1].ts]
            if not after and not any(row.ts == lost[-1].ts for row in of_chain if row not in lost):
                continue  # nothing follows it yet: only the reported balance can tell
            chains += 1
            (broken,) = [row for row in mine if (row[1], row[2]) == chain]
            near = {row.ts for row in lost} | set(after[:1])
            assert broken[3] in near, (damage, broken)
            at = {row.ident for row in of_chain if row.ts == broken[3]}
            assert broken[4].removesuffix("-again") in at
            truth = {
                "doubled": None if broken[5] is None else -lost[0].amount,
                "sign": 2 * lost[0].amount,
                "amount": Decimal("-0.125"),
            }.get(damage, sum(row.amount for row in lost))
            if broken[5] is not None:
                exact += 1
                assert Decimal(broken[5]) == truth, (damage, broken)
            if damage in ("doubled", "sign"):
                assert broken[6] == damage, (damage, broken)
                assert broken[7].removesuffix("-again") == lost[0].ident
            if damage == "skipped" and broken[5] is not None:
                assert (broken[6], broken[7]) == ("unsettled", lost[0].ident)
    assert len(found) == chains >= 50 and exact > 45
    for account, rows in sound.items():  # late rows, and a reading of it all that is sound
        bank.land(shuffled(rng, rows), account)
    bank.load()
    assert bank.breaks() == []


def reference(bank: Bank) -> set[tuple]:
    """Breaks of the chain law over all that is in raw and read without a gap."""
    found = set()
    spans = bank.con.execute(
        "SELECT account, start_ts, end_ts FROM ops.covered_spans WHERE dataset = 'exchanges_ledger'"
    ).fetchall()
    chains: dict[tuple, list[RunningRow]] = {}
    for *key, ts, change, balance, ref in bank.con.execute(
        "SELECT account, wallet, asset, ts, amount, balance, entry_id FROM raw.exchanges_ledger "
        "WHERE is_settled AND vanished_at IS NULL ORDER BY ts"
    ).fetchall():
        chains.setdefault(tuple(key), []).append(RunningRow(ts, change, balance, ref))
    for key, rows in chains.items():
        whole = [(a, b) for account, a, b in spans if account == key[0]]
        chain = follow(
            rows, None, lambda x, y, whole=whole: any(a <= x and y < b for a, b in whole)
        )
        found |= {(*key, b.ts) for b in chain.breaks}
    return found


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_loaded_in_any_order_breaks_are_those_of_the_whole_chain(tmp_path, seed):
    """Damaged and sound readings of random spans, with gaps, one load after the other."""
    bank, rng = Bank(tmp_path), random.Random(seed)
    rows = ledger(rng, 200)
    bank.sync(shuffled(rng, rows), "main", START + 8 * DAY, START + 10 * DAY)  # proves the wallets
    assert {status for (status,) in bank.states("status")} == {"proven"}
    odd = 0
    for _ in range(10):
        start = START + timedelta(hours=rng.randint(0, 24 * 25))
        end = min(END, start + timedelta(hours=rng.randint(5, 150)))
        read = [row for row in rows if start <= row.ts < end]
        if len(read) > 10 and rng.random() < 0.6:
            read = damaged(rng, read, rng.choice(DAMAGES))[0]
        bank.sync(shuffled(rng, read), "main", start, end)
        expected = reference(bank)
        odd += bool(expected)
        assert set(bank.breaks()) == expected
    bank.sync(rows)
    assert bank.breaks() == [] == sorted(reference(bank)) and odd


def moves(*amounts: str, start: datetime = START + DAY, balance: str = "0", step=DAY) -> list[Row]:
    """Entries of one chain, a day apart."""
    held, rows = Decimal(balance), []
    for n, amount in enumerate(amounts):
        held += Decimal(amount)
        rows.append(Row(f"e{n}", start + n * step, "w1", "BTC", Decimal(amount), Decimal(0), held))
    return rows


def test_a_gap_is_no_break_and_is_compared_when_it_is_filled(tmp_path):
    bank, rows = Bank(tmp_path), moves("1", "2", "4", "8", "16", "32", "64", "128")
    edges = START + 3.5 * DAY, START + 5.5 * DAY
    bank.sync(rows, "main", START, edges[0])
    bank.sync(rows, "main", edges[1], END)
    assert bank.breaks() == []
    assert bank.con.execute("SELECT after_ts, ts FROM ops.chain_gaps").fetchall() == [
        (rows[2].ts, rows[5].ts)
    ]
    bank.sync([], "main", edges[0], START + 4.6 * DAY)  # touches one side only
    assert bank.breaks() == []
    bank.sync([], "main", START + 4.6 * DAY, edges[1])
    assert bank.breaks("ts", "after_ts", "missing_text", "suspect") == [
        (rows[5].ts, rows[2].ts, "24", "skipped")
    ]
    days = bank.con.execute("SELECT count(*) FROM ops.touched_days WHERE day = ?", [rows[5].ts])
    assert days.fetchone() == (2,), "the load that found it has marked its day"
    bank.sync(rows, "main", edges[0], edges[1])
    assert bank.breaks() == []
    assert bank.con.execute("SELECT count(*) FROM ops.chain_gaps").fetchone() == (0,)


def test_a_wallet_that_could_not_be_read_is_no_break(tmp_path):
    bank, rows = Bank(tmp_path), moves("1", "2", "4", "8", "16", "32", "64")
    bank.sync(rows, "main", START, START + 3.5 * DAY)
    out = Unread(
        "exchanges_ledger", "w1", Interval(utc(START + 3.5 * DAY), utc(START + 5.5 * DAY)), "404"
    )
    bank.land([], "main", START + 3.5 * DAY, START + 5.5 * DAY, unread=[out])
    bank.sync(rows, "main", START + 5.5 * DAY, END)
    assert bank.breaks() == []
    bank.sync([], "main", START + 3.5 * DAY, START + 5.5 * DAY)
    assert bank.breaks("missing_text") == [("24",)]


@pytest.mark.parametrize(
    ("changes", "convention"), [("gross", "amount - fee"), ("net", "amount + fee")]
)
def test_a_wrong_fee_convention_is_named(tmp_path, changes, convention, caplog):
    bank, rng = Bank(tmp_path), random.Random(changes)
    rows = ledger(rng)
    bank.sync(shuffled(rng, rows), changes=changes, end=START + 8 * DAY)
    found = bank.breaks("wallet", "token", "entry_id", "ts", "suspect", "explanation")
    assert [row[4] for row in found] == ["fee_convention"] * 4
    for wallet, token, entry, ts, _, words in found:
        of_chain = [row for row in rows if row.chain == (wallet, token)]
        first = next(row for row in of_chain[1:] if row.fee and row.ts > of_chain[0].ts)
        assert (ts <= first.ts) and convention in words
        assert entry in {row.ident for row in of_chain if row.ts == ts}
    assert set(bank.states("status", "convention")) == {("proven", convention)}
    bank.sync(shuffled(rng, rows), changes=changes, start=START + 8 * DAY)
    assert len(bank.breaks()) == 4, "it is said once of each chain"


def test_a_fee_that_one_entry_does_not_state_is_named(tmp_path):
    rows = [replace(row, fee=Decimal("0.5")) for row in moves("1", "2", "4", "8", "16")]
    rows[3] = replace(rows[3], amount=rows[3].amount + 1, fee=Decimal(1))
    bank = Bank(tmp_path)
    bank.sync(rows)
    ((suspect, ref, words),) = bank.breaks("suspect", "suspect_ref", "explanation")
    assert (suspect, ref) == ("fee", "e3") and "amount - fee" in words


@pytest.mark.parametrize("stated", ["0", "available"])
def test_balances_that_are_no_running_balance_are_not_used(tmp_path, stated, caplog):
    rng, bank = random.Random(stated), Bank(tmp_path)
    rows = ledger(rng)
    odd = [
        replace(row, balance=Decimal(0) if stated == "0" else Decimal(rng.randint(0, 10**9)))
        for row in rows
        if row.wallet == "w1"
    ]
    sound = [row for row in rows if row.wallet == "w2"]
    bank.sync(odd + sound, end=START + 8 * DAY)
    bank.sync(odd + sound, start=START + 8 * DAY)
    assert bank.breaks() == []
    assert set(bank.states("wallet", "status")) == {
        ("w1", "no running balance"), ("w2", "proven")}  # fmt: skip
    assert {
        opening for wallet, opening in bank.states("wallet", "opening_text") if wallet == "w1"
    } == {None}
    assert caplog.text.count("no running balance") == 1
    bank.sync([row for row in odd + sound if row is not sound[30]])
    assert [row[1] for row in bank.breaks()] == ["w2"]


def test_two_entries_of_an_account_that_states_nothing_are_enough_to_say_so(tmp_path):
    bank = Bank(tmp_path)
    bank.sync([replace(row, balance=Decimal(0)) for row in moves("5", "7")])
    assert bank.states("status") == [("no running balance",)] and bank.breaks() == []


def test_few_entries_decide_nothing_and_are_judged_with_those_that_follow(tmp_path):
    bank, rows = Bank(tmp_path), moves("1", "2", "4", "8", "16", "32")
    sparse = [row for row in rows if row.ident != "e1"]
    bank.sync(sparse, end=rows[3].ts)
    assert bank.states("status") == [("undecided",)] and bank.breaks() == []
    bank.sync(sparse, start=rows[3].ts)
    assert bank.states("status") == [("proven",)]
    assert bank.breaks("entry_id", "missing_text") == [("e2", "2")]


def test_unknown_amounts_and_balances_interrupt_the_chain(tmp_path):
    rows = moves("1", "2", "4", "8", "16", "32", "64", "128")
    rows[2] = replace(rows[2], balance=None)
    rows[5] = replace(rows[5], balance=Decimal(10) ** 30)
    bank = Bank(tmp_path)
    bank.sync(rows)
    assert bank.breaks() == [] and bank.states("status") == [("proven",)]
    bank.sync([row for row in rows if row.ident != "e1"])
    assert bank.breaks() == [], "e2 says nothing that could be compared"


def test_the_first_entries_vanish_and_the_opening_stays(tmp_path):
    rows = moves("1", "2", "4", "8", "16", balance="100")
    bank = Bank(tmp_path)
    bank.sync(rows)
    assert bank.states("opening_text", "opening_ref") == [("100", "e0")]
    bank.sync(rows[1:])
    assert bank.breaks("entry_id", "missing_text", "suspect", "suspect_ref") == [
        ("e1", "1", "vanished", "e0")
    ]
    assert bank.states("opening_text", "opening_ref") == [("100", "e0")]
    bank.sync(rows)
    assert bank.breaks() == []


def test_a_source_without_balances_costs_nothing(tmp_path):
    bank, rng = Bank(tmp_path), random.Random(3)
    bank.sync(without_balance(ledger(rng)))
    for table in ("running_balances", "chain_breaks", "chain_gaps"):
        assert bank.con.execute(f"SELECT count(*) FROM ops.{table}").fetchone() == (0,)
    assert not bank.con.execute("SELECT 1 FROM duckdb_tables() WHERE temporary").fetchone()


def test_a_row_read_again_is_the_same_row_though_its_table_has_got_columns(tmp_path):
    """A warehouse of before: its hashes are of the columns that it had."""
    bank, rng = Bank(tmp_path), random.Random(4)
    rows = without_balance(ledger(rng))
    bank.sync(rows)
    columns = [c.name for c in EXCHANGES_LEDGER.columns if "balance" not in c.name]
    bank.con.execute(f"UPDATE raw.exchanges_ledger SET row_hash = hash({', '.join(columns)})")
    for column in ("balance_text", "balance"):
        bank.con.execute(f"ALTER TABLE raw.exchanges_ledger DROP COLUMN {column}")
    bank.con.execute("COMMENT ON TABLE ops.batches IS 'schema of before'")
    schema.create_all(bank.con)
    done = bank.sync(rows)
    assert (done.same, done.changed, done.new) == (len(rows), 0, 0)
    with_balance = ledger(random.Random(4))
    done = bank.sync(with_balance)
    assert (done.same, done.changed) == (0, len(rows)), "what the vendor says is new"
    assert bank.con.execute("SELECT count(*) FROM raw.history").fetchone() == (len(rows),)
    assert bank.con.execute(
        "SELECT count(balance) FROM raw.exchanges_ledger_as_of('2026-03-01 00:01:30')"
    ).fetchone() == (0,)
    assert set(bank.states("status")) == {("proven",)} and bank.breaks() == []


def test_a_replay_judges_alike(tmp_path):
    file, rng = tmp_path / "warehouse.duckdb", random.Random(14)
    bank, rows = Bank(tmp_path / "landing", str(file)), ledger(rng)
    bank.sync(damaged(rng, rows, "dropped")[0], end=START + 9 * DAY)
    bank.sync(rows, start=START + 12 * DAY)
    bank.sync(damaged(rng, rows, "sign")[0], start=START + 9 * DAY, end=START + 12 * DAY)
    found, states = bank.breaks("*"), bank.states("*")
    assert found and states
    bank.con.close()
    assert replay(file, bank.root, SOURCES).differences == {}
    with duckdb.connect(str(file)) as bank.con:
        assert (bank.breaks("*"), bank.states("*")) == (found, states)


def test_a_group_that_ends_as_it_began_does_not_hide_a_break():
    def row(hour, change, balance):
        ts = START + timedelta(hours=hour)
        return RunningRow(ts, Decimal(change), Decimal(balance), f"{hour} {change}")

    loop = [row(2, 3, 8), row(2, -3, 5)]
    assert chain_law([row(1, 5, 5), *loop, row(3, 1, 6)]) == (0, [])
    assert chain_law([*loop, row(3, 1, 6)]) == (5, [])
    _, (broken,) = chain_law([row(1, 5, 5), *loop, row(3, 1, 7)])
    assert (broken.missing, broken.after) == (1, START + timedelta(hours=2))
    _, (broken,) = chain_law([row(1, 1, 1), *loop, row(3, 1, 6)])
    assert (broken.missing, broken.ts) == (4, START + timedelta(hours=2))


def test_the_cost_does_not_grow_with_the_history(tmp_path, monkeypatch):
    """A sync of a day reads a few rows of a chain of thousands."""
    bank, rows = Bank(tmp_path), moves(*["1"] * 3000, step=600 * 1000 * MS)
    bank.sync(rows, end=rows[2900].ts, size=1000)
    judged = []
    monkeypatch.setattr(
        "ledgerhouse.load.running_balances.follow",
        lambda rows, *args: follow(judged.extend(rows := list(rows)) or rows, *args),
    )
    bank.sync(rows, start=rows[2900].ts, end=rows[2950].ts, read_from=rows[2800].ts)
    assert bank.breaks() == [] and len(judged) == 50
    judged.clear()
    late = [row for row in rows if row.ident != "e100"]
    bank.sync(late, start=rows[95].ts, end=rows[105].ts)
    assert bank.breaks("entry_id", "missing_text") == [("e101", "1")] and len(judged) <= 4
