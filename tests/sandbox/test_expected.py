"""What books must say of each balance: whatever they say otherwise is named."""

from __future__ import annotations

import pytest
import requests

from sandbox.server import serve
from sandbox.world.expected import AGREES, Expected, differences, expectation

NOW = "2026-01-31T06:00:00Z"
TOKEN = ("debank", "0x1", "eth:eth")
BALANCE = {"source": "debank", "account": "0x1", "token": "eth:eth", "difference": "0",
           "status": "exact", "kind": None, "first_bad": None, "snapshot": NOW}  # fmt: skip


def judge(*rows, now=NOW, **expected):
    return differences(rows, {TOKEN: Expected(AGREES, **expected)}, now)


def test_books_that_say_what_is_true_have_nothing_wrong():
    assert judge(BALANCE) == []


@pytest.mark.parametrize("status", ["off", "awaiting_coverage", "explained"])
def test_a_balance_that_is_not_what_the_truth_says_is_wrong(status):
    (sentence,) = judge(BALANCE | {"status": status})
    assert f"0x1 eth:eth is {status}, difference 0; the truth: exact or within" in sentence


def test_a_balance_that_is_missing_or_of_an_older_snapshot_is_wrong():
    assert "is not in curated.reconciliation" in judge()[0]
    assert judge(optional=True) == []
    assert "not of 2026-01-31T12:00:00Z" in judge(BALANCE, now="2026-01-31T12:00:00Z")[0]


def test_calls_and_units_that_were_not_counted_are_wrong():
    with serve(seed=7, now=NOW, scale=0.05, mess=False) as url:

        def wrong(**spent: int) -> list[str]:
            body = {"since": NOW, "snapshots": [NOW], "rows": [], "spent": spent}
            said = requests.post(f"{url}/_truth/differences", json=body, timeout=60).json()
            return [line for line in said if "counted" in line]

        requests.get(f"{url}/debank/v1/user/token_list", timeout=60)
        assert wrong(**{"debank calls": 1}) == []
        assert wrong() == ["0 debank calls are logged, the sandbox counted 1"]
        assert wrong(**{"debank calls": 1, "debank units": 3}) == [
            "3 debank units are logged, the sandbox counted 0"
        ]


def residual(status="exact", kind="", amount="0", vendor="coinbase", **more):
    return {"vendor": vendor, "chain": None, "reported": "5", "turnover": "5", "residual": amount, "kind": kind,
            "status": status, "is_verified": None, "listed": True, "token_id": "BTC",
            "parts": {kind: amount}, "steps": [], **more}  # fmt: skip


A, B, C = "2026-01-01T00:00:00Z", "2026-01-02T06:00:00Z", "2026-01-03T06:00:00Z"
ODD = residual(amount="2")


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([residual(), residual()], "exact or within_tolerance"),
        ([ODD, ODD], "explained by opening_inferred"),
        ([ODD, residual(amount="3")], f"settling, first at {B}"),
        ([residual(amount="-2")] * 2, f"off, first at {A}"),
        ([residual(), ODD, ODD], f"off, first at {B}"),
        ([residual(amount="-2"), residual(), ODD], f"settling, first at {C}"),
        ([ODD, residual(amount="3"), ODD], "explained by opening_inferred"),
        ([residual(), residual("explained", "rebase", "1")], "explained by rebase"),
        ([residual(), residual("explained", "spam", "1")], "explained by spam"),
        ([residual(), residual("awaiting_coverage", "unread", "1")], "awaiting_coverage"),
    ],
)
def test_what_the_truth_expects_of_a_balance(rows, wanted):
    assert str(expectation(list(zip((A, B, C), rows)), A, A)) == wanted


def test_an_opening_is_not_expected_where_an_amount_is_unknown_or_the_token_came_later():
    series = [(A, ODD), (B, ODD)]
    assert str(expectation(series, A, A, lacks_an_amount=True)) == f"off, first at {A}"
    assert str(expectation([(B, ODD)], A, A)) == f"settling, first at {B}"
