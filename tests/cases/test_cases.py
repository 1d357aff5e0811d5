"""What public reports of people's books tell of: each case ends as a person should have it.

All cases live in one warehouse, synced together beside a healthy wallet: one odd thing inside an
account must stop nothing else, at any sync. So do those of the folder `shared/cases`, where it is
there: a second warehouse with as many syncs would take another minute.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from extract.core.interval import utc
from ledgerhouse.publish.books import open_books
from tests.cases import vendors, worlds
from tests.cases.pipeline import SIX_HOURS, Pipeline, environment, last_mark
from tests.cases.worlds import DOCUMENTED, SPAM, STETH, TOK, WALLET, Case, Healthy

SHARED = Path(__file__).parents[3] / "shared" / "cases"
NOT_PUBLISHED = ("12_address_twice", "13_ens_name", "20_ed25519_key")  # tests of their own

pytestmark = pytest.mark.slow


@dataclass
class Account:
    """The published books of one account after one sync."""

    con: object
    source: str
    account: str

    def rows(self, sql: str) -> list[tuple]:
        return self.con.execute(sql.format(me=f"source = '{self.source}' AND account = '{self.account}'")).fetchall()  # fmt: skip

    def status(self, token: str) -> tuple:
        (found,) = self.rows("SELECT status, kind FROM curated.reconciliation WHERE {me} AND "
                             f"token = '{token}'")  # fmt: skip
        return found

    def statuses(self) -> dict[str, str]:
        return dict(self.rows("SELECT token, status FROM curated.reconciliation WHERE {me}"))

    def balance(self, token: str) -> Decimal:
        ((found,),) = self.rows(
            "SELECT arg_max(balance, date) FROM curated.daily_balances WHERE {me} AND "
            f"token = '{token}'"
        )
        return found

    def trade(self, *columns: str) -> tuple:
        (found,) = self.rows(f"SELECT {', '.join(columns)} FROM raw.exchanges_trades WHERE {{me}}")
        return found


def shared_cases() -> dict[str, Case]:
    """The cases of shared/cases by name; none where the folder is absent."""
    cases = {}
    for file in sorted(SHARED.glob("*.json")):
        case = json.loads(file.read_text())
        base = {vendor: case[vendor] for vendor in ("coinbase", "debank") if vendor in case}
        runs = case.get("runs") or [{"now": case["now"], "patch": {}}]
        cases[file.stem] = Case({run["now"]: base | run["patch"] for run in runs})
    return cases


class Lived:
    """All cases, synced together, by the name of their folder and their own: made_01_…"""

    def __init__(self, var: Path, cases: dict[str, Case]):
        self.var, self.cases, self.healthy = var, cases, Healthy()
        self.addresses = {name: f"0xab{number:038x}" for number, name in enumerate(cases, 16)}
        self.wrong: list[str] = []  # of the healthy wallet's books, at any sync

    def live(self) -> None:
        moments: dict = {}
        for name, case in self.cases.items():
            for now, world in case.worlds.items():
                moments.setdefault(utc(now), {})[name] = world
            last = max(utc(now) for now in case.worlds)
            # A balance snapshot is judged by the sync after it.
            moments.setdefault(last + SIX_HOURS, {}).setdefault(name, [*case.worlds.values()][-1])
        syncs: dict = {}  # one for all the moments between two six-hour marks: they read alike
        for now in sorted(moments):
            syncs.setdefault(last_mark(now), []).append(now)
        with vendors.serve() as served:
            pipeline = Pipeline(self.var, served)
            for together in syncs.values():
                now, worlds_now = together[-1], {}
                for moment in together:
                    worlds_now |= moments[moment]
                pipeline.entries.clear()
                served.worlds["healthy"] = self._own("healthy", self.healthy.world(now))
                pipeline.add("debank", self.address("healthy"), "healthy")
                for name, world in worlds_now.items():
                    served.worlds[name] = self._own(name, world)
                    if "coinbase" in world:
                        pipeline.add("coinbase", name, name)
                    if "debank" in world:
                        pipeline.add("debank", self.address(name), name)
                pipeline.run(now)
                self.wrong += [f"{now}: {key}: {text}" for key, text in pipeline.failures.items()]
                self.wrong += list(pipeline.refused.values())
                if (self.var / "published").exists():
                    self._look(now)

    def _own(self, name: str, world: dict) -> dict:
        return json.loads(json.dumps(world).replace(WALLET, self.address(name)))

    def address(self, name: str) -> str:
        return self.addresses.get(name, "0xab" + "f" * 38)

    def account(self, name: str, source: str = "") -> Account:
        source = source or ("coinbase" if "coinbase" in [*self.cases[name].worlds.values()][-1] else "debank")  # fmt: skip
        return Account(open_books(self.var / "published"), source,
                       name if source == "coinbase" else self.address(name))  # fmt: skip

    def _look(self, now) -> None:
        """The healthy wallet's books, as they are published after this sync."""
        account = Account(open_books(self.var / "published"), "debank", self.address("healthy"))
        end = last_mark(now) - timedelta(seconds=1)
        days = int((end.timestamp() - worlds.FEB) // 86400) + 1
        if account.balance("eth:eth") != days:
            self.wrong.append(f"{now}: the healthy wallet has {account.balance('eth:eth')}, not {days}")  # fmt: skip


@dataclass
class Folder:
    """The cases of one folder, and how they have lived."""

    name: str
    lived: Lived

    @property
    def cases(self) -> set[str]:
        return {name for name in CASES[self.name] if f"{self.name}_{name}" in self.lived.cases}

    def account(self, name: str, source: str = "") -> Account:
        return self.lived.account(f"{self.name}_{name}", source)


CASES = {"made": worlds.made(), "shared": shared_cases()}
ABSENT = pytest.mark.skipif(
    not CASES["shared"], reason="the folder shared/cases is no part of the project, and not there"
)


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """All cases of both folders, synced once."""
    var = tmp_path_factory.mktemp("cases")
    found = Lived(
        var,
        {
            f"{folder}_{name}": case
            for folder, cases in CASES.items()
            for name, case in cases.items()
            if name not in NOT_PUBLISHED
        },
    )
    with environment(var):
        found.live()
    return found


@pytest.fixture(params=["made", pytest.param("shared", marks=ABSENT)])
def folder(request, lived):
    return Folder(request.param, lived)


def test_nothing_stops_the_healthy_wallet_and_no_fetch_fails(folder):
    assert not folder.lived.wrong, "\n".join(folder.lived.wrong)


def steth(b):
    assert b.status(f"eth:{STETH}") == ("explained", "rebase")
    ((reported,),) = b.rows(
        f"SELECT reported FROM curated.reconciliation WHERE {{me}} AND token = 'eth:{STETH}'"
    )
    assert abs(b.balance(f"eth:{STETH}") - reported) < Decimal("1e-14")
    growth = b.rows("SELECT sum(amount) FROM curated.tx_unified WHERE {me} AND kind = 'reward'")
    assert abs(growth[0][0] - Decimal("0.0015616438356")) < Decimal("1e-9")


def spam(token):
    def check(b):
        assert b.status(token)[:2] == ("explained", "spam")

    return check


def off(token, residual):
    def check(b):
        assert b.status(token)[0] in ("off", "settling")
        rows = b.rows("SELECT difference FROM curated.reconciliation WHERE {me} AND "
                      f"token = '{token}'")  # fmt: skip
        assert abs(rows[0][0] - Decimal(residual)) < Decimal("1e-15")

    return check


def exact(**balances):
    def check(b):
        for token, balance in balances.items():
            assert b.status(token)[0] in ("exact", "within_tolerance"), (token, b.statuses())
            assert balance is None or b.balance(token) == Decimal(balance), token

    return check


def exact_tokens(balances):
    return exact(**balances)


def opening(token, amount, total):
    def check(b):
        assert b.status(token) == ("explained", "opening_inferred")
        assert b.balance(token) == Decimal(total)
        rows = b.rows("SELECT amount, ts FROM curated.tx_unified WHERE {me} AND "
                      f"kind = 'opening_inferred' AND token = '{token}'")  # fmt: skip
        assert [(row[0], str(row[1])) for row in rows] == [(Decimal(amount), "2026-01-01 00:00:00")]

    return check


def infinite(b):
    (row,) = b.rows("SELECT status, reason FROM curated.reconciliation WHERE {me} AND token LIKE 'eth:0x%'")  # fmt: skip
    token = b.statuses()
    assert row[0] == "not_reconcilable" and row[1], token


def seconds_gap(b):
    assert b.status("bsc:bsc")[0] == "exact" and b.balance("bsc:bsc") > 0
    (row,) = b.rows("SELECT dataset, part FROM ops.unread_parts WHERE {me} AND dataset = 'onchain_transactions'")  # fmt: skip
    assert row == ("onchain_transactions", "bsc")


def dead(b):
    exact(BTC="1")(b)
    (row,) = b.rows("SELECT part, reason FROM ops.unread_parts WHERE {me}")
    assert row[0] == "00" and row[1]


def times(expected):
    def check(b):
        rows = b.rows("SELECT ts FROM raw.exchanges_ledger WHERE {me} ORDER BY ts")
        assert [str(ts) for (ts,) in rows] == expected
        exact(BTC="2")(b)

    return check


def no_balance(b):
    exact(EUR="10")(b)
    # A balance of nothing has no place in raw.balances: kept with its reason.
    assert b.rows("SELECT dataset, reason FROM raw.rejected WHERE {me}") == [
        ("balances", "it has no token")
    ]


def rebate(b):
    assert b.trade("symbol", "cost_text", "cost", "fee", "fee_asset") == (
        "SOL/USDC", "0.0802691053677932", Decimal("0.0802691053677932"),
        Decimal("-0.0004816146322068"), "USDC",
    )  # fmt: skip
    exact(BTC="1")(b)


def future(b):
    assert b.trade("quote", "fee_asset", "fee") == ("USD", "USD", Decimal("0.75"))
    exact(BTC="1")(b)


def warned(name, broken):
    def check(b):
        exact(BTC="1")(b)
        assert b.rows(f"SELECT count(*) FROM raw.exchanges_trades WHERE {{me}} AND {broken}") == [(1,)]  # fmt: skip
        # Of each folder there is one: the check has counted every fill that is so.
        ((rows,),) = b.rows(f"SELECT count(*) FROM raw.exchanges_trades WHERE {broken}")
        assert b.rows(
            "SELECT severity, max(split_part(observed, ' ', 1)::INT) FROM ops.checkpoints "
            "WHERE NOT success AND checkpoint = 'raw.exchanges_trades' AND expectation = "
            f"'{name}' GROUP BY 1"
        ) == [("warning", rows)]

    return check


def all_fills(b):
    assert len(b.rows("SELECT 1 FROM raw.exchanges_trades WHERE {me}")) == 3
    exact(BTC="1")(b)


def one_fee(b):
    assert b.rows("SELECT fee_token, sum(fee) FROM curated.tx_unified WHERE {me} AND fee IS NOT "
                  "NULL GROUP BY 1") == [("USD", Decimal(6))]  # fmt: skip
    exact(ETH="1", USD="994")(b)


def types(b):
    rows = b.rows("SELECT type, kind FROM raw.exchanges_ledger WHERE {me}")
    assert {type for type, _ in rows} == set(DOCUMENTED)
    assert not [type for type, kind in rows if kind == "unknown"]
    exact(USDC="9")(b)


def near(b):
    status = b.status("NEAR")[0]
    assert status in ("exact", "within_tolerance", "off", "not_reconcilable")
    rows = b.rows("SELECT amount, amount_text FROM raw.exchanges_ledger WHERE {me}")
    for amount, text in rows:  # exact, or said not to be
        assert amount is None or amount == Decimal(text)


def flagged(b):
    exact(BTC="1")(b)
    rows = b.rows("SELECT amount_text, asset FROM raw.exchanges_ledger WHERE {me} ORDER BY ts")
    assert rows == [(None, "BTC"), ("1.00000000", "BTC")]


def half_conversion(b):
    exact(XTZ="220", ETH="2")(b)


def harmless(b):
    assert b.balance(f"eth:{TOK}") == 5
    ((symbol,),) = b.rows(f"SELECT symbol FROM curated.assets WHERE token = 'eth:{TOK}' AND 'x' <> '{{me}}'".replace("'{me}'", "'y'"))  # fmt: skip
    assert "\0" not in symbol
    symbol.encode()


def unlisted(b):
    assert b.status(f"eth:{TOK}")[0] in ("off", "settling")
    ((reason,),) = b.rows(f"SELECT reason FROM curated.reconciliation WHERE {{me}} AND token = 'eth:{TOK}'")  # fmt: skip
    assert reason


def real_person(folder):
    opening("BTC", "0.6", "1.25")(folder.account("40_real_person", "coinbase"))
    b = folder.account("40_real_person", "debank")
    opening("eth:eth", "3", "5")(b)
    assert b.status(f"eth:{STETH}") == ("explained", "rebase")
    assert b.status("eth:0x" + "5a" * 20) == ("explained", "spam")
    assert b.status(f"eth:{SPAM}") == ("explained", "spam")
    assert b.rows("SELECT count(*) FROM curated.tx_unified WHERE {me} AND kind = 'nft'") == [(1,)]


EXPECTED = {
    "01_rebasing_steth": steth,
    "02_start_ts_after_first_tx": opening("eth:eth", "3", "5"),
    "04_spam_without_history": spam("eth:0x" + "5a" * 20),
    "05_infinite_balance": infinite,
    "07_op_l1_fee": off("op:op", "-0.00034"),
    "08_scam_flag_on_one_of_two": spam(f"eth:{SPAM}"),
    "09_exponents_and_dust": exact_tokens(
        {
            f"eth:{TOK}": "0.000000100000000001",
            "eth:0x" + "7b" * 20: None,
            "eth:0x" + "7c" * 20: "3",
        }
    ),
    "10a_symbol": harmless,
    "10b_symbol": harmless,
    "10c_symbol": harmless,
    "11_twenty_in_one_second": seconds_gap,
    "14_balance_ahead_of_history": exact_tokens({"eth:eth": "3"}),
    "15_unlisted_token": unlisted,
    "16_one_hash_two_rows": exact_tokens({"eth:eth": "2", f"eth:{TOK}": "7"}),
    "17_null_fields": off("newchain:newchain", "-0.00001"),
    "21b_time_without_seconds": times(["2026-02-01 10:37:11", "2026-02-02 10:37:00"]),
    "21c_time_with_offset": times(["2026-02-01 10:37:11", "2026-02-01 22:30:00"]),
    "22_pagination_next_uri_only": exact(BTC="1"),
    "23a_one_wallet_500": dead,
    "23b_one_wallet_404": dead,
    "24a_wallet_id_is_code": exact(EUR="10"),
    "24b_wallet_without_balance": no_balance,
    "25_half_conversion": half_conversion,
    "26a_quote_sized_fill_with_rebate": rebate,
    "26b_dated_future": future,
    "26c_fill_at_price_zero": warned("price_in_range", "price <= 0"),
    "26d_unknown_side": warned("side_present", "side IS NULL"),
    "26e_adjusted_fills": all_fills,
    "27_fee_on_both_legs": one_fee,
    "28_eth2_and_staking": exact(ETH="0.02", ETH2="0", CBETH="0.95"),
    "29_not_newest_first": exact(BTC="3"),
    "30_24_digits": near,
    "30b_24_digits_rounded_away": near,
    "31_entry_without_amount": flagged,
    "32_coinbase_start_ts": opening("BTC", "0.6", "1"),
    "33_documented_types": types,
}


@pytest.mark.parametrize(
    ("which", "name"),
    [(which, name) for which, cases in CASES.items() for name in EXPECTED if name in cases],
)
def test_case(which, name, lived):
    EXPECTED[name](Folder(which, lived).account(name))


def test_a_real_person(folder):
    real_person(folder)


def test_every_case_is_asked_for(folder):
    assert folder.cases and folder.cases <= {*EXPECTED, "40_real_person"}
