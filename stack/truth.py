"""What the sandbox's own truth says of each balance, and where the books say something else.

The sandbox knows every difference between its balances and its histories by kind, without the
product. The books infer an opening from the first snapshot alone (nothing older can be asked), so
whatever an account had in its favour then is its opening, for the sandbox, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

import requests

AGREES = frozenset({"exact", "within_tolerance"})
NOISE, LARGE = Decimal("3e-16"), Decimal(10) ** 20
Token = tuple[str, str, str]  # source, account, token


@dataclass(frozen=True)
class Expected:
    """The statuses that are right, the kind that explains it, and the snapshot that shows it first."""

    statuses: frozenset[str]
    kind: str = ""
    first_bad: str = ""
    optional: bool = False  # nothing is reported nor summed: there need be no row

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of curated.reconciliation says the same."""
        kinds = set((row["kind"] or "").split("+"))
        return (
            row["status"] in self.statuses
            and (not self.kind or self.kind in kinds)
            and (not self.first_bad or row["first_bad"] == self.first_bad)
        )

    def __str__(self) -> str:
        kind = f" by {self.kind}" if self.kind else ""
        window = f", first at {self.first_bad}" if self.first_bad else ""
        return " or ".join(sorted(self.statuses)) + kind + window


Expectations = Mapping[Token, Expected]


def ask(url: str, since: str, first: str, last: str) -> dict[Token, Expected]:
    """What the truth expects of each token at the snapshot `last`, where `first` was the first one
    and the history begins at `since`; all are ISO texts."""

    def get(what: str, **params: str) -> list[dict]:
        answer = requests.get(f"{url}/_truth/{what}", params, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def residuals(at: str) -> dict[Token, dict]:
        rows = get("residuals", at=at, now=last, since=since)
        return {(r["vendor"], r["account"], r["token"]): r for r in rows}

    seconds = {(u["account"], u.get("chain")) for u in get("unread", now=last)}
    unknown = {r["token"] for r in get("coinbase/ledger", now=last) if r["amount"] is None}
    before, expected = residuals(first), {}
    for token, row in residuals(last).items():
        apart = (token[1], row.get("chain")) in seconds
        blind = row["vendor"] == "coinbase" and row["token"] in unknown
        expected[token] = expectation(before.get(token), row, first, last, apart, blind)
    return expected


def expectation(
    before: Mapping[str, Any] | None,
    row: Mapping[str, Any],
    first: str,
    last: str,
    lacks_a_second: bool = False,
    lacks_an_amount: bool = False,
) -> Expected:
    """What is right of a token, given the truth about it at both snapshots.

    A token that `lacks_an_amount` has no opening: the unknown amount may be the difference.
    """
    kinds = set(row["kind"].split("+"))
    empty = not Decimal(row["reported"]) and not Decimal(row["turnover"])
    if row["status"] in ("not_reconcilable", "awaiting_coverage"):
        return Expected(frozenset({row["status"]}), optional=empty)
    if "spam" in kinds or "nft" in kinds:
        return Expected(frozenset({"explained"}), "spam", optional="nft" in kinds or empty)
    if "rebase" in kinds:
        return Expected(frozenset({"explained"}), "rebase")
    with localcontext(prec=100):
        then = Decimal(before["residual"]) if before else Decimal(0)
        allowed = before is not None and not lacks_an_amount and then > _tolerance(before)
        opening = then if allowed else Decimal(0)
        left = Decimal(row["residual"]) - opening
    if abs(left) <= _tolerance(row):
        if opening:
            return Expected(frozenset({"explained"}), "opening_inferred")
        return Expected(AGREES, optional=empty)
    apart = {"awaiting_coverage"} if lacks_a_second else set()
    if before and abs(then - opening) > _tolerance(before):
        return Expected(frozenset({"off", *apart}), first_bad="" if apart else first)
    return Expected(frozenset({"settling", *apart}), first_bad="" if apart else last)


def _tolerance(row: Mapping[str, Any]) -> Decimal:
    """What JSON numbers may lose; amounts that fit no DECIMAL(38,18) are compared to six digits."""
    turnover = Decimal(row["turnover"])
    if row["vendor"] == "coinbase":
        return Decimal(0)
    large = max(turnover, Decimal(row["reported"])) >= LARGE
    with localcontext(prec=100):
        return (turnover + Decimal("0.01")) * NOISE + (Decimal("0.001") if large else 0)


def differences(rows: Sequence[Mapping[str, Any]], expected: Expectations) -> list[str]:
    """Where the books do not say what the truth expects, in sentences."""
    found = {(r["source"], r["account"], r["token"]): r for r in rows}
    wrong = []
    for token, row in found.items():
        right = expected.get(token, Expected(AGREES))
        if not right.matches(row):
            wrong.append(f"{' '.join(token)} is {_said(row)}; the truth: {right}")
    return wrong + [
        f"{' '.join(token)} is not in curated.reconciliation; the truth: {right}"
        for token, right in expected.items()
        if token not in found and not right.optional
    ]


def _said(row: Mapping[str, Any]) -> str:
    kind = f" by {row['kind']}" if row["kind"] else ""
    since = f", first at {row['first_bad']}" if row["first_bad"] else ""
    return f"{row['status']}{kind}{since}, difference {row['difference']}"
