"""What books of this world must say of each balance, and where some say something else.

The world knows every difference between its balances and its histories by kind, without the
product. Books infer an opening from the first snapshot alone (nothing older can be asked), so
whatever an account had in its favour then is its opening, for the sandbox, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

from sandbox.world.moments import DAY, micros, seconds

if TYPE_CHECKING:
    from sandbox.world.world import World

AGREES = frozenset({"exact", "within_tolerance"})
EXPLAINED, OPENING = frozenset({"explained"}), frozenset({"opening_inferred"})
NFT = re.compile("[0-9a-f]{32}")
SETTLED = DAY  # what is off for less is still settling
NOISE, LARGE = Decimal("3e-16"), Decimal(10) ** 20
# A token's band is some ten times what the sandbox's tokens grow: beyond that it is no growth.
LIKE_GROWTH = 16
Token = tuple[str, str, str]  # source, account, token


@dataclass(frozen=True)
class Expected:
    """The statuses that are right, the kinds that explain it, and the snapshot that shows it first."""

    statuses: frozenset[str]
    kinds: frozenset[str] = frozenset()
    first_bad: str = ""
    optional: bool = False  # nothing is reported nor summed: there need be no row
    also: tuple[frozenset[str], ...] = ()  # kinds that are right, too

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of curated.reconciliation says the same."""
        kinds = set((row["kind"] or "").split("+")) - {"", "unread"}
        return (
            row["status"] in self.statuses
            and kinds in (self.kinds, *self.also)
            and (not self.first_bad or row["first_bad"] == self.first_bad)
        )

    def __str__(self) -> str:
        kinds = ["+".join(sorted(each)) for each in (self.kinds, *self.also) if each]
        kind = f" by {' or '.join(kinds)}" if kinds else ""
        window = f", first at {self.first_bad}" if self.first_bad else ""
        return " or ".join(sorted(self.statuses)) + kind + window


def expectations(
    world: World, since: str, snapshots: Sequence[str], vendors: Collection[str] | None = None
) -> dict[Token, Expected]:
    """What is right of each token at the last of the `snapshots` that were taken, oldest first, of
    a history that begins at `since`; all are ISO texts. `vendors`: of these only; None: of all."""
    now, first = snapshots[-1], snapshots[0]

    def residuals(at: str) -> dict[Token, dict]:
        rows = world.residuals(at, now, since, vendors)
        return {(r["vendor"], r["account"], r["token"]): r for r in rows}

    seconds_unread = {(u["account"], u.get("chain")) for u in world.truth("unread", now, vendors)}
    unknown = {
        (r["vendor"], r["account"], r["token"])
        for r in world.truth("ledger", now, vendors)
        if r["amount"] is None and micros(since) <= micros(r["time"]) < micros(first)
    }
    series = [(at, residuals(at)) for at in snapshots]
    expected = {}
    for token, row in series[-1][1].items():
        expected[token] = expectation(
            [(at, rows[token]) for at, rows in series if token in rows],
            since,
            first,
            lacks_a_second=(token[1], row.get("chain")) in seconds_unread,
            lacks_an_amount=token in unknown,
        )
    return expected


def expectation(
    series: Sequence[tuple[str, Mapping[str, Any]]],
    since: str,
    first: str,
    *,
    lacks_a_second: bool = False,
    lacks_an_amount: bool = False,
) -> Expected:
    """What is right of a token, given the truth about it at each snapshot that knows it; `first` is
    the account's first, and its history begins at `since`.

    A token that `lacks_an_amount` has no opening: the unknown amount may be the difference.
    """
    last, row = series[-1]
    kinds = set(row["kind"].split("+"))
    moved = _moved(row)
    # An NFT is in no list of tokens: one that came and went is not reconciled at all.
    empty = not row["listed"] and (not moved or NFT.fullmatch(row["token_id"]) is not None)
    if row["status"] in ("not_reconcilable", "awaiting_coverage"):
        return Expected(frozenset({row["status"]}), optional=empty)
    if _is_uncalled(row) or "nft" in kinds or ("spam" in kinds and _is_known_spam(row, since)):
        return Expected(EXPLAINED, frozenset({"spam"}), optional="nft" in kinds or empty)
    if "rebase" in kinds:
        kinds, *others = _growth(series, first)
        return Expected(EXPLAINED, kinds, also=tuple(others))
    with localcontext(prec=100):
        opening, left = (
            Decimal(0),
            [(at, Decimal(r["residual"]), _tolerance(r)) for at, r in series],
        )
        allowed = not lacks_an_amount and not _is_uncalled(series[0][1])
        if left[0][0] == first and left[0][1] > left[0][2] and allowed:
            opening = left[0][1]
        good = [abs(residual - opening) <= noise for _, residual, noise in left]
    if good[-1]:
        if opening:
            return Expected(EXPLAINED, OPENING)
        return Expected(AGREES, optional=empty)
    apart = {"awaiting_coverage"} if lacks_a_second else set()
    first_bad = left[len(good) - good[::-1].index(True) if True in good else 0][0]
    status = "off" if seconds(last) - seconds(first_bad) >= SETTLED else "settling"
    return Expected(frozenset({status, *apart}), first_bad="" if apart else first_bad)


def _moved(row: Mapping[str, Any]) -> bool:
    return bool(Decimal(row["turnover"]))


def _is_uncalled(row: Mapping[str, Any]) -> bool:
    """Whether nothing says that a token which the vendor has not verified was wanted."""
    return row["is_verified"] is False and row["listed"] and not _moved(row)


def _is_known_spam(row: Mapping[str, Any], since: str) -> bool:
    """Whether the books can know: of a verified token only by its transactions, none of which may
    be older than the history."""
    came = [Decimal(amount) for at, amount, kind in row["steps"] if kind == "spam" and at >= since]
    return not row["is_verified"] or sum(came, Decimal(0)) == Decimal(row["parts"]["spam"])


def _growth(
    series: Sequence[tuple[str, Mapping[str, Any]]], first: str
) -> tuple[frozenset[str], ...]:
    """The kinds of a rebasing token that are right.

    Nothing but its size tells what was held before the history from what grew before the first
    snapshot: the books may take an opening for growth where it is not LIKE_GROWTH times as much.
    """
    grown = frozenset({"rebase"})
    at, row = series[0]
    with localcontext(prec=100):
        parts = {kind: Decimal(amount) for kind, amount in row["parts"].items()}
        before = parts.pop("rebase", Decimal(0))
        parts.pop("float", None)
        others = sum(parts.values(), Decimal(0))
        if at != first or not parts or before + others <= 0:
            return (grown,)
        grew = Decimal(series[-1][1]["parts"]["rebase"]) != before
        opened = OPENING | (grown if grew else frozenset())
        return (opened,) if others > LIKE_GROWTH * before else (opened, grown)


def _tolerance(row: Mapping[str, Any]) -> Decimal:
    """What JSON numbers may lose; amounts that fit no DECIMAL(38,18) are compared to six digits."""
    turnover = Decimal(row["turnover"])
    if row["chain"] is None:  # an exchange's amounts are text
        return Decimal(0)
    large = max(turnover, Decimal(row["reported"])) >= LARGE
    with localcontext(prec=100):
        return (turnover + Decimal("0.01")) * NOISE + (Decimal("0.001") if large else 0)


def differences(
    rows: Sequence[Mapping[str, Any]], expected: Mapping[Token, Expected], now: str
) -> list[str]:
    """Where the books do not say what is expected of them at their last snapshot, that of `now`, in
    sentences."""
    found = {(r["source"], r["account"], r["token"]): r for r in rows}
    wrong = []
    for token, row in found.items():
        right = expected.get(token, Expected(AGREES))
        if not right.matches(row):
            wrong.append(f"{' '.join(token)} is {_said(row)}; the truth: {right}")
        if (snapshot := row.get("snapshot", now)) != now:
            wrong.append(f"{' '.join(token)} is of the snapshot of {snapshot}, not of {now}")
    return wrong + [
        f"{' '.join(token)} is not in curated.reconciliation; the truth: {right}"
        for token, right in expected.items()
        if token not in found and not right.optional
    ]


def _said(row: Mapping[str, Any]) -> str:
    kind = f" by {row['kind']}" if row["kind"] else ""
    since = f", first at {row['first_bad']}" if row["first_bad"] else ""
    return f"{row['status']}{kind}{since}, difference {row['difference']}"
