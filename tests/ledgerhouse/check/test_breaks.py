"""The break finder: the window holds the damaged row, and the step names it."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal

import pytest

from extract.sources import all_sources
from ledgerhouse.check.agreement import agreed_share
from ledgerhouse.check.breaks import find_breaks
from ledgerhouse.load.chain_law import RunningRow, chain_law
from tests.helpers.small_world import DAY, HOUR, START, SmallWorld

SOURCES = all_sources()
DAMAGES = ("dropped", "doubled", "sign", "skipped", "changed")


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(tmp_path / "accounts.toml"))
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    return tmp_path


def breaks(world) -> list[dict]:
    cursor = world.con.execute("FROM ops.breaks ORDER BY token, first_bad_ts")
    names = [c[0] for c in cursor.description]
    return [dict(zip(names, row)) for row in cursor.fetchall()]


@pytest.mark.parametrize("source", ["coinbase", "debank"])
def test_fifty_damages_are_found(source):
    rng = random.Random(f"damages of {source}")
    worlds = 0
    for round_ in range(5):
        world = SmallWorld(source)
        tokens = [f"eth:0x{n}" if world.onchain else f"T{n}" for n in range(10)]
        moves: dict[str, list] = {token: [] for token in tokens}
        for token in tokens:
            for _ in range(rng.randint(6, 14)):
                ts = START + timedelta(seconds=rng.randrange(20 * 86400))
                amount = Decimal(rng.randint(1, 10**12)) / 10 ** rng.choice([6, 8, 10])
                moves[token].append((ts, amount if rng.random() < 0.6 else -amount))
        snaps = [START + HOUR * hours for hours in range(6, 24 * 21, 6)]
        held = dict.fromkeys(tokens, Decimal(0))
        done = dict.fromkeys(tokens, 0)
        for token in tokens:
            moves[token].sort()
        for snap in snaps:
            for token in tokens:
                while done[token] < len(moves[token]) and moves[token][done[token]][0] < snap:
                    held[token] += moves[token][done[token]][1]
                    done[token] += 1
            world.snapshot(snap, {token: format(held[token], "f") for token in tokens})
        wanted = {}
        for n, token in enumerate(tokens):
            damage = DAMAGES[(n + round_) % len(DAMAGES)]
            victim = rng.randrange(len(moves[token]))
            for number, (ts, amount) in enumerate(moves[token]):
                ident = f"{token}-{number}"
                more: dict = {}
                if number == victim:
                    wanted[token] = (damage, ts, amount, ident)
                    if damage == "dropped":
                        continue
                    if damage == "sign":
                        amount = -amount
                    if damage == "skipped":
                        more = {"is_settled": False}
                    if damage == "changed":
                        amount += Decimal("0.125")
                    if damage == "doubled":
                        world.move(ts, token, format(amount, "f"), ident=ident + "-again")
                world.move(ts, token, format(amount, "f"), ident=ident, **more)
        assert find_breaks(world.con, SOURCES) == len(tokens)
        for found in breaks(world):
            damage, ts, amount, ident = wanted[found["token"]]
            worlds += 1
            since = found["last_good_ts"] or START
            assert since <= ts < found["first_bad_ts"], (damage, found)
            step = Decimal(found["step_text"])
            truth = {"doubled": -amount, "sign": 2 * amount, "changed": -Decimal("0.125")}
            assert step == truth.get(damage, amount)
            assert found["refetch_calls"] >= 1
            ref = found["suspect_ref"] or ""
            if damage in ("doubled", "sign"):
                assert found["suspect"] == damage and ref.startswith(ident), (damage, found)
            if damage == "skipped":
                assert found["suspect"] == "unsettled" and ref.startswith(ident), found
    assert worlds == 50


def test_nothing_is_written_while_all_agree(monkeypatch):
    from ledgerhouse.check import breaks as finder

    world = SmallWorld()
    world.move(START + DAY, "BTC", "1")
    world.snapshot(START + 2 * DAY, {"BTC": "1"})
    monkeypatch.setattr(finder, "residuals", None)
    assert find_breaks(world.con, SOURCES) == 0 and breaks(world) == []


def test_settling_for_a_day_and_off_after_it():
    world = SmallWorld()
    world.move(START + DAY, "BTC", "1")
    world.snapshot(START + 2 * DAY, {"BTC": "1"})
    for hours, status in ((6, "settling"), (24, "settling"), (36, "off")):
        world.snapshot(START + 2 * DAY + hours * HOUR, {"BTC": "3"})
        find_breaks(world.con, SOURCES)
        row = world.reconciliation()["BTC"]
        assert (row["status"], row["since"]) == (status, START + 2 * DAY + 6 * HOUR)
        assert "a movement in is missing" in row["reason"]
    world.move(START + 2 * DAY + HOUR, "BTC", "2")
    find_breaks(world.con, SOURCES)
    assert world.status("BTC") == ("exact", None) and breaks(world) == []


def test_the_two_sides_of_a_wrap_name_each_other():
    world = SmallWorld("debank")
    world.move(START + DAY, "eth:eth", "5")
    world.snapshot(START + 2 * DAY, {"eth:eth": "5"})
    world.snapshot(START + 3 * DAY, {"eth:eth": "3", "eth:0xweth": "2"})
    find_breaks(world.con, SOURCES)
    found = {row["token"]: (row["suspect"], row["suspect_ref"]) for row in breaks(world)}
    assert found == {
        "eth:eth": ("transfer", "debank main eth:0xweth"),
        "eth:0xweth": ("transfer", "debank main eth:eth"),
    }


def test_growth_at_every_snapshot_is_reported_as_such():
    world = SmallWorld("debank")
    world.move(START + DAY, "eth:0xgrows", "100")
    for n in range(8):
        world.snapshot(START + (2 + n) * DAY, {"eth:0xgrows": str(100 + n * Decimal("0.01"))})
    find_breaks(world.con, SOURCES)
    (found,) = breaks(world)
    assert found["suspect"] == "rebase" and found["step_text"] == "0.07"
    assert found["last_good_ts"] == START + 2 * DAY


def test_a_refused_entry_is_reported(settings):
    (settings / "adjustments.toml").write_text('[[adjustment]]\naccount = "main"\n')
    world = SmallWorld()
    world.snapshot(START + DAY, {})
    assert find_breaks(world.con, SOURCES) == 1
    (found,) = breaks(world)
    assert found["suspect"] == "adjustment" and "number 1" in found["explanation"]


@pytest.mark.parametrize("seed", range(20))
def test_the_chain_law_names_the_row_or_its_successor(seed):
    rng = random.Random(seed)
    rows, balance, ts = [], Decimal(rng.randint(0, 50)), START
    opening = balance
    for n in range(120):
        if rng.random() > 0.35:
            ts += HOUR
        change = Decimal(rng.randint(1, 10**9)) / 10**6 * rng.choice([1, -1])
        balance += change
        rows.append(RunningRow(ts, change, balance, str(n)))
    mixed = rows[:]
    rng.shuffle(mixed)
    assert chain_law(mixed) == (opening, [])
    victim = rng.randrange(1, len(rows) - 1)
    lost = [row for row in mixed if row is not rows[victim]]
    _, found = chain_law(lost)
    assert len(found) == 1
    (broken,) = found
    near = [row for row in rows if row.ts == rows[victim].ts]
    after = next((row.ts for row in rows if row.ts > rows[victim].ts), None)
    assert broken.ts in {near[0].ts, after}
    assert broken.missing in (rows[victim].change, None)


def test_the_share_of_value_that_agrees():
    world = SmallWorld("debank")
    world.move(START + DAY, "eth:eth", "3")
    world.snapshot(START + 2 * DAY, {"eth:eth": "3"}, price="10", is_verified=True)
    assert agreed_share(world.con) == 100
    world.move(START + DAY, "eth:0xbad", "9")
    world.snapshot(
        START + 3 * DAY, {"eth:eth": "3", "eth:0xbad": "1"}, price="10", is_verified=True
    )
    world.snapshot(START + 3 * DAY, {"eth:0xspam": "99"}, price="10", is_verified=False)
    assert agreed_share(world.con) == agreed_share(world.con, "debank", "main") == 75
    assert agreed_share(world.con, "debank", "another") is None
