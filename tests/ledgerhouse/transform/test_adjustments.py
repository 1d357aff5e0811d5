"""Openings, growth and entries of adjustments.toml: what is booked that no vendor lists."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from ledgerhouse.transform import adjustments
from ledgerhouse.transform.adjustments_file import bands, entries
from tests.helpers.small_world import DAY, HOUR, START, SmallWorld

STETH = "eth:0xae7ab96520de3a18e5e111b5eaab095312d7fe84"
FIRST = START + 5 * DAY


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """No adjustments.toml and no rebasing.toml of anybody's."""
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(tmp_path / "accounts.toml"))
    return tmp_path


def booked(world) -> dict[tuple[str, str], str]:
    """(token, kind): amounts, joined."""
    return {
        (token, kind): amounts
        for token, kind, amounts in world.con.execute(
            "SELECT token, kind, string_agg(amount_text, ' ' ORDER BY ts) FROM raw.adjustments "
            "GROUP BY ALL"
        ).fetchall()
    }


@pytest.mark.parametrize(("source", "token"), [("coinbase", "ETH"), ("debank", "eth:eth")])
def test_what_was_held_before_the_history_begins_is_an_opening(tmp_path, source, token):
    world = SmallWorld(source)
    world.move(START + DAY, token, "2")
    world.snapshot(FIRST, {token: "5"})
    assert adjustments.settle(world.con, tmp_path)
    assert booked(world) == {(token, "opening_inferred"): "3"}
    assert world.status(token) == ("explained", "opening_inferred")
    row = world.reconciliation()[token]
    assert (row["computed"], row["difference"]) == (5, 0)
    (ts, evidence) = world.con.execute("SELECT ts, evidence FROM raw.adjustments").fetchone()
    assert ts == START and "2026-01-06" in evidence
    assert adjustments.settle(world.con, tmp_path) is None  # nothing new


def test_what_was_sold_since_was_held_before(tmp_path):
    world = SmallWorld()
    world.move(START + DAY, "BTC", "-5")
    world.snapshot(FIRST, {"EUR": "1"})
    adjustments.settle(world.con, tmp_path)
    assert booked(world) == {("BTC", "opening_inferred"): "5", ("EUR", "opening_inferred"): "1"}
    assert world.status("BTC") == ("explained", "opening_inferred")


def test_a_balance_ahead_of_the_history_is_no_opening_once_the_history_has_it(tmp_path):
    world = SmallWorld("debank")
    world.move(START + DAY, "eth:eth", "2")
    world.snapshot(FIRST, {"eth:eth": "3"})
    adjustments.settle(world.con, tmp_path)
    assert world.status("eth:eth") == ("explained", "opening_inferred")
    world.move(FIRST - HOUR / 12, "eth:eth", "1")
    world.snapshot(FIRST + 6 * HOUR, {"eth:eth": "3"})
    assert adjustments.settle(world.con, tmp_path)
    assert booked(world) == {}
    assert world.status("eth:eth") == ("exact", None)


def test_an_opening_is_fixed_after_a_day_and_after_a_replay_the_same(tmp_path):
    world = SmallWorld()
    world.snapshot(FIRST, {"BTC": "1"})
    world.snapshot(FIRST + DAY, {"BTC": "1"})
    adjustments.settle(world.con, tmp_path)
    world.move(FIRST - DAY, "BTC", "0.25")  # late by a week: a difference
    world.snapshot(FIRST + 7 * DAY, {"BTC": "1", "ETH": "7"})
    adjustments.settle(world.con, tmp_path)
    assert booked(world) == {("BTC", "opening_inferred"): "1"}
    assert world.status("BTC") == ("off", None)
    assert world.status("ETH") == ("off", None)  # it came later, unseen: no opening
    before = world.con.execute("SELECT * EXCLUDE recorded_at FROM raw.adjustments").fetchall()
    world.con.execute("DELETE FROM raw.adjustments")
    adjustments.settle(world.con, tmp_path)
    after = world.con.execute("SELECT * EXCLUDE recorded_at FROM raw.adjustments").fetchall()
    assert before == after


def test_a_computed_balance_too_high_is_no_opening(tmp_path):
    world = SmallWorld("debank")
    world.move(START + DAY, "op:op", "5")
    world.snapshot(FIRST, {"op:op": "4.99966"})
    adjustments.settle(world.con, tmp_path)
    assert booked(world) == {}
    row = world.reconciliation()["op:op"]
    assert (row["status"], row["difference_text"]) == ("off", "-0.00034")


def test_spam_is_no_opening_and_said_to_be_spam(tmp_path):
    world = SmallWorld("debank")
    world.move(START + DAY, "eth:0xair", "1000", is_scam=True)
    world.move(START + DAY, "eth:0xair", "500")
    world.move(START + DAY, "eth:0xall", "9", is_scam=True)
    world.snapshot(
        FIRST, {"eth:0xair": "1500", "eth:0xall": "9", "eth:0xvisit": "77"}, is_verified=False
    )
    adjustments.settle(world.con, tmp_path)
    assert booked(world) == {}
    for token in ("eth:0xair", "eth:0xall", "eth:0xvisit"):
        assert world.status(token) == ("explained", "spam")


def test_an_amount_that_is_not_known_makes_no_opening(tmp_path):
    world = SmallWorld()
    world.move(START + DAY, "BTC", None)
    world.move(START + DAY, "BTC", "1")
    world.snapshot(FIRST, {"BTC": "3"})
    adjustments.settle(world.con, tmp_path)
    assert booked(world) == {}
    row = world.reconciliation()["BTC"]
    assert row["status"] == "off" and "1 of its movements" in row["reason"]


def test_a_wallet_that_cannot_be_read_is_awaited_and_its_opening_comes_when_it_is(tmp_path):
    world = SmallWorld()
    world.con.execute("""INSERT INTO ops.unread_parts VALUES ('coinbase', 'main',
        'exchanges_ledger', 'EUR', '2026-01-01', '2026-01-06', '404', '2026-01-06', '2026-01-06',
        'r', 'b')""")
    for n in range(3):
        world.snapshot(FIRST + n * DAY, {"EUR": "10", "BTC": "1"})
        adjustments.settle(world.con, tmp_path)
    assert booked(world) == {("BTC", "opening_inferred"): "1"}
    row = world.reconciliation()["EUR"]
    assert row["status"] == "awaiting_coverage" and "404" in row["reason"]
    world.con.execute("DELETE FROM ops.unread_parts")
    world.move(START + DAY, "EUR", "4")
    adjustments.settle(world.con, tmp_path)
    assert booked(world)["EUR", "opening_inferred"] == "6"
    world.move(START + DAY, "EUR", "1")
    adjustments.settle(world.con, tmp_path)
    assert booked(world)["EUR", "opening_inferred"] == "6"  # fixed by then


def test_growth_within_its_band_is_a_reward_and_beyond_it_off(tmp_path):
    world = SmallWorld("debank")
    world.move(START + DAY, STETH, "10")
    world.snapshot(FIRST, {STETH: "10"})
    world.snapshot(FIRST + DAY, {STETH: "10.00078123"})
    adjustments.settle(world.con, tmp_path)
    assert booked(world) == {(STETH, "rebase"): "0.00078123"}
    assert world.status(STETH) == ("explained", "rebase")
    kind = "SELECT kind, counts FROM curated.tx_unified WHERE domain = 'adjustment'"
    assert world.con.execute(kind).fetchall() == [("reward", True)]
    world.snapshot(FIRST + 2 * DAY, {STETH: "12.0015"})
    adjustments.settle(world.con, tmp_path)
    assert world.status(STETH) == ("off", None)
    world.move(FIRST + 1.5 * DAY, STETH, "2")  # indexed late
    adjustments.settle(world.con, tmp_path)
    assert booked(world) == {(STETH, "rebase"): "0.00078123 0.00071877"}
    assert world.status(STETH) == ("explained", "rebase")


def test_a_rebasing_token_held_before_has_its_opening_too(tmp_path):
    world = SmallWorld("debank")
    world.snapshot(FIRST, {STETH: "10"})
    world.snapshot(FIRST + DAY, {STETH: "9.999"})
    adjustments.settle(world.con, tmp_path)
    assert booked(world) == {(STETH, "opening_inferred"): "10", (STETH, "rebase"): "-0.001"}
    assert world.status(STETH) == ("explained", "opening_inferred+rebase")


def test_what_cannot_be_held_is_said(tmp_path):
    world = SmallWorld("debank")
    world.snapshot(FIRST, {"eth:0xinf": None}, amount_text=str(2**256 - 1))
    adjustments.settle(world.con, tmp_path)
    row = world.reconciliation()["eth:0xinf"]
    assert row["status"] == "not_reconcilable" and "beyond" in row["reason"]


ENTRY = """
[[adjustment]]
source = "coinbase"
account = "main"
token = "ETH"
from = 2026-01-06T00:00:00Z
to = 2026-01-07T00:00:00Z
amount = "0.5"
kind = "staking"
evidence = "https://example.org/statement"
"""


def test_an_entry_explains_and_is_refused_once_what_it_explains_is_gone(tmp_path, settings):
    (settings / "adjustments.toml").write_text(ENTRY)
    world = SmallWorld()
    world.move(START + DAY, "ETH", "1")
    world.snapshot(FIRST, {"ETH": "1"})
    world.snapshot(FIRST + DAY, {"ETH": "1.5"})
    adjustments.settle(world.con, tmp_path)
    assert world.status("ETH") == ("explained", "staking")
    assert adjustments.refused(world.con, tmp_path) == {}
    world.move(FIRST + HOUR, "ETH", "0.5")
    adjustments.settle(world.con, tmp_path)
    assert world.status("ETH") == ("exact", None)
    ((name, (entry, why)),) = adjustments.refused(world.con, tmp_path).items()
    assert "number 1" in name and "Remove it" in why and entry.amount == Decimal("0.5")


def test_who_knows_the_opening_replaces_the_inferred_one(tmp_path, settings):
    world = SmallWorld()
    world.snapshot(FIRST, {"ETH": "3"})
    world.snapshot(FIRST + DAY, {"ETH": "3"})
    adjustments.settle(world.con, tmp_path)
    entry = ENTRY.replace("staking", "opening").replace('"0.5"', '"3"')
    at = "at = 2026-01-01T00:00:00Z"
    entry = "\n".join(
        at if line.startswith("from") else line
        for line in entry.splitlines()
        if not line.startswith("to =")
    )
    (settings / "adjustments.toml").write_text(entry)
    adjustments.settle(world.con, tmp_path)
    assert booked(world) == {("ETH", "opening"): "3"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('amount = "0.5"', "needs amount"),
        ('amount = "0.5"\namount = 0.5', "cannot be read"),
        ('amount = "1e-19"', "18 digits"),
        ('amount = "NaN"', "18 digits"),
        ('amount = "0"', "not 0"),
        ('kind = "rebase"\namount = "1"', "none of"),
        ('at = 2026-01-06\namount = "1"', "either `at`"),
        ('colour = "red"\namount = "1"', "unknown colour"),
    ],
)
def test_an_entry_that_is_wrong_is_named_and_the_others_go_on(settings, change, words):
    text = ENTRY if change.startswith("kind") is False else ENTRY.replace('kind = "staking"\n', "")
    wrong = text.replace('amount = "0.5"', "" if words == "needs amount" else change)
    (settings / "adjustments.toml").write_text(ENTRY + wrong)
    good, refusals = entries()
    if words != "cannot be read":
        assert [entry.name for entry in good] == ["adjustments.toml, [[adjustment]] number 1"]
        assert list(refusals) == ["adjustments.toml, [[adjustment]] number 2"]
    assert any(words in why for why in refusals.values()), refusals


def test_the_users_bands_are_added(settings):
    shipped = bands()
    assert shipped[STETH] == Decimal("0.001")
    (settings / "rebasing.toml").write_text(f'[tokens]\n"{STETH}" = 3\n"op:0xA" = 0.5\n')
    assert bands() == shipped | {STETH: Decimal("0.03"), "op:0xa": Decimal("0.005")}
    (settings / "rebasing.toml").write_text('[tokens]\n"op:0xA" = "x"\n')
    with pytest.raises(ValueError, match="largest change a day"):
        bands()


def test_a_history_read_further_back_infers_its_opening_again(tmp_path):
    world = SmallWorld()
    world.snapshot(FIRST, {"BTC": "1"})
    world.snapshot(FIRST + DAY, {"BTC": "1"})
    adjustments.settle(world.con, tmp_path)
    world.start = START - 30 * DAY
    world.move(START - DAY, "BTC", "0.75")
    world.snapshot(FIRST + DAY + timedelta(hours=6), {"BTC": "1"})
    adjustments.settle(world.con, tmp_path)
    assert booked(world) == {("BTC", "opening_inferred"): "0.25"}
    assert world.status("BTC") == ("explained", "opening_inferred")
