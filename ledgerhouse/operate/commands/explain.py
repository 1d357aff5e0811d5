"""`airflow warehouse explain ACCOUNT ASSET DAY`: a balance, down to the raw rows and their runs.

Opening balance + every leg that counts = closing balance, to the last digit, or it says so and
ends with 1. No sum here is DuckDB's: the legs are added in Python from the amounts' own digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

from extract.core.interval import iso
from ledgerhouse.operate.commands import CommandFailed
from ledgerhouse.operate.commands.books import near, one_account, opened
from ledgerhouse.operate.commands.tables import digits, rows

if TYPE_CHECKING:
    import duckdb

DAY = timedelta(days=1)
PRECISION = 100  # digits: Python's own 28 are fewer than an amount has

LEGS = """
    SELECT domain, ts, kind, chain, txid, leg, status, amount, amount_text, counts, is_overflow,
        is_settled, is_scam, counterparty, ref
    FROM curated.tx_unified WHERE source = ? AND account = ? AND coalesce(token, '') = ?
        AND ts >= ? AND ts < ? ORDER BY ts, chain, txid, leg"""

# Raw rows of one day, by what a leg is called in curated; gas is of the transaction itself.
RAW = """
    SELECT 'exchanges_ledger' AS dataset, '' AS chain, entry_id AS txid, 'entry' AS leg,
        batch_id, first_seen_at, changed_at, vanished_at FROM raw.exchanges_ledger
    WHERE source = $1 AND account = $2 AND ts >= $3 AND ts < $4
    UNION ALL
    SELECT 'onchain_transfers', chain, tx_id, direction || ':' || leg, batch_id, first_seen_at,
        changed_at, vanished_at FROM raw.onchain_transfers
    WHERE source = $1 AND account = $2 AND ts >= $3 AND ts < $4
    UNION ALL
    SELECT 'onchain_transactions', chain, tx_id, 'gas', batch_id, first_seen_at, changed_at,
        vanished_at FROM raw.onchain_transactions
    WHERE source = $1 AND account = $2 AND ts >= $3 AND ts < $4"""

REPORTED = """
    SELECT ts, sum(amount) AS reported, count(*) AS wallets,
        count(*) FILTER (amount IS NULL) AS lost
    FROM raw.balances WHERE source = ? AND account = ? AND token = ? AND ts >= ? AND ts < ?
    GROUP BY ts ORDER BY ts"""


def explain(args: Any) -> int:
    """0 when the day adds up; 1 when it does not; CommandFailed (2) for what the books lack."""
    day = _day(args.day)
    with opened(args.output) as (con, answer):
        source, account = one_account(con, args.source, args.account)
        token, symbol = _token(con, source, account, args.asset)
        _within(con, source, account, token, symbol, day)
        explanation = explained(con, source, account, token, day)
        answer.document |= {
            "source": source,
            "account": account,
            "token": token,
            "symbol": symbol,
            "day": day,
            **explanation,
        }
        _show(
            answer,
            explanation,
            f"{symbol} ({token})" if symbol != token else token,
            f"{source} {account}",
            day,
        )
    return 0 if explanation["adds_up"] else 1


def explained(
    con: duckdb.DuckDBPyConnection, source: str, account: str, token: str, day: date
) -> dict[str, Any]:
    """Everything behind one day of one balance; amounts as text, sums by Python's decimals."""
    mine, span = [source, account, token], [day, day + DAY]
    balances = {
        row["date"]: row
        for row in rows(
            con,
            "SELECT date, balance, is_exact FROM curated.daily_balances WHERE source = ? AND "
            "account = ? AND token = ? AND date >= ? AND date <= ?",
            [*mine, day - DAY, day],
        )
    }
    flow = rows(
        con,
        "SELECT net FROM curated.daily_flows WHERE source = ? AND account = ? AND "
        "token = ? AND date = ?",
        [*mine, day],
    )
    legs = rows(con, LEGS, [*mine, *span])
    raw = _raw(con, [source, account, *span])
    before = balances.get(day - DAY)
    opening = before["balance"] if before else Decimal(0)
    closing = balances[day]["balance"] if day in balances else None
    with localcontext(prec=PRECISION):
        net = sum((leg["amount"] for leg in legs if leg["counts"]), Decimal(0))
        recorded = flow[0]["net"] if flow else Decimal(0)
        whole = None not in (opening, closing, recorded)
        summed = opening + net if opening is not None else None
        snapshots = [_snapshot(s, opening, legs) for s in rows(con, REPORTED, [*mine, *span])]
    exact = (before is None or before["is_exact"]) and day in balances and balances[day]["is_exact"]
    return {
        "opening": digits(opening),
        "closing": digits(closing),
        "net": digits(net),
        "recorded_net": digits(recorded),
        "sum": digits(summed),
        "is_exact": bool(exact),
        "adds_up": bool(whole and summed == closing and net == recorded),
        "legs": [_leg(leg, raw) for leg in legs],
        "snapshots": snapshots,
        "gaps": rows(
            con,
            'SELECT dataset, start_ts AS start, end_ts AS "end" FROM ops.gaps '
            "WHERE source = ? AND account = ? AND start_ts < ? AND end_ts > ?",
            [source, account, day + DAY, day],
        ),
    }


def _raw(con: duckdb.DuckDBPyConnection, where: Sequence[Any]) -> dict[tuple, dict[str, Any]]:
    """The raw row of each leg, with the load that wrote it and the run of that load."""
    by_leg = {(r["chain"], r["txid"], r["leg"]): r for r in rows(con, RAW, where)}
    batches = {
        (b["batch_id"], b["dataset"], b["account"]): b
        for b in rows(
            con,
            "SELECT batch_id, dataset, account, any_value(run_id) AS run_id, any_value(file) AS "
            "file, any_value(loaded_at) AS loaded_at FROM ops.batches WHERE batch_id IN "
            "(SELECT unnest(?::VARCHAR[])) GROUP BY ALL",
            [sorted({row["batch_id"] for row in by_leg.values()})],
        )
    }
    for row in by_leg.values():
        batch = batches.get((row["batch_id"], row["dataset"], where[1]), {})
        row |= {name: batch.get(name) for name in ("run_id", "file", "loaded_at")}
    return by_leg


def _leg(leg: Mapping[str, Any], raw: Mapping[tuple, Mapping[str, Any]]) -> dict[str, Any]:
    """A leg as the answer has it: its amount, why it does not count, and the load that wrote it."""
    row = raw.get((leg["chain"], leg["txid"], leg["leg"]), {})
    return {
        **{
            name: leg[name]
            for name in (
                "ts",
                "kind",
                "chain",
                "txid",
                "leg",
                "status",
                "counts",
                "counterparty",
                "ref",
            )
        },
        "amount": digits(leg["amount"]) if leg["amount"] is not None else None,
        "amount_text": leg["amount_text"],
        "why_not": _why_not(leg),
        **{
            name: row.get(name)
            for name in (
                "dataset",
                "batch_id",
                "run_id",
                "file",
                "loaded_at",
                "first_seen_at",
                "changed_at",
            )
        },
    }


def _why_not(leg: Mapping[str, Any]) -> str:
    """Why a leg is not part of the balance; empty when it is."""
    if leg["counts"]:
        return ""
    if leg["is_scam"]:
        return "the source calls it a scam"
    if not leg["is_settled"]:
        return f"not settled: {leg['status']}"
    return "its amount does not fit DECIMAL(38,18)" if leg["is_overflow"] else "no amount is known"


def _snapshot(reported: Mapping[str, Any], opening: Decimal | None, legs) -> dict[str, Any]:
    """What the vendor reported that day beside what the rows give for the same instant."""
    computed = (
        None
        if opening is None
        else opening
        + sum(
            (leg["amount"] for leg in legs if leg["counts"] and leg["ts"] < reported["ts"]),
            Decimal(0),
        )
    )
    amount = reported["reported"] if not reported["lost"] else None
    return {
        "ts": reported["ts"],
        "reported": digits(amount),
        "computed": digits(computed),
        "difference": (
            digits(amount - computed) if amount is not None and computed is not None else None
        ),
    }


def _show(answer, explanation: Mapping[str, Any], asset: str, account: str, day: date) -> None:
    answer.say(f"{account}: {asset} on {day}")
    lines = [
        {"what": f"held when {day} began", "amount": explanation["opening"]},
        *(
            {
                "what": leg["kind"],
                "ts": leg["ts"],
                "amount": leg["amount"] if leg["counts"] else None,
                "aside": "" if leg["counts"] else leg["amount_text"],
                "status": leg["status"],
                "why_not": leg["why_not"],
                "id": f"{leg['txid']} {leg['leg']}".removesuffix(" entry"),
                "run": leg["run_id"],
            }
            for leg in explanation["legs"]
        ),
        {"what": "net of the day", "amount": explanation["net"]},
        {"what": "held at its end", "amount": explanation["closing"]},
    ]
    # Its JSON is `legs`: these lines are for reading.
    if answer.output != "json":
        answer.table(
            "lines",
            "",
            lines,
            {
                "what": "",
                "ts": "at",
                "amount": "amount",
                "aside": "does not count",
                "why_not": "because",
                "status": "status",
                "id": "transaction",
                "run": "brought by",
            },
            right=("amount", "aside"),
        )
    for shot in explanation["snapshots"]:
        answer.say(
            f"Reported at {iso(shot['ts'])}: {shot['reported']}; computed for that instant: "
            f"{shot['computed']}; difference {shot['difference']}"
        )
    for gap in explanation["gaps"]:
        answer.say(
            f"Not whole: {gap['dataset']} was not read from {iso(gap['start'])} to "
            f"{iso(gap['end'])}",
            style="bold red",
        )
    if not explanation["is_exact"]:
        answer.say(
            "Not exact: an amount up to this day does not fit DECIMAL(38,18) and is left "
            "out; balance_wide of curated.daily_balances has six digits of it",
            style="red",
        )
    if None in (explanation["opening"], explanation["closing"]):
        answer.say(
            "✗ a sum does not fit DECIMAL(38,18): there is no balance to explain", style="bold red"
        )
    elif explanation["adds_up"]:
        answer.say(
            f"✓ {explanation['opening']} + {explanation['net']} = {explanation['closing']}, to the last digit"
        )
    else:
        answer.say(
            f"✗ it does not add up: {explanation['opening']} + {explanation['net']} is "
            f"{explanation['sum']}, not {explanation['closing']} (daily_flows: {explanation['recorded_net']})",
            style="bold red",
        )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CommandFailed(f"{text!r} is no day: write it like 2026-01-31 (UTC)", 2) from None


def _token(
    con: duckdb.DuckDBPyConnection, source: str, account: str, asset: str
) -> tuple[str, str]:
    """(token, symbol) of the asset that is meant, by token or symbol, however it is spelled."""
    held = rows(
        con,
        """
        SELECT f.token, coalesce(a.symbol, f.token) AS symbol, sum(f.legs)::BIGINT AS legs
        FROM curated.daily_flows f LEFT JOIN curated.assets a ON a.token = f.token
        WHERE f.source = ? AND f.account = ? GROUP BY ALL ORDER BY legs DESC, f.token""",
        [source, account],
    )
    wanted = asset.lower()
    matching = [r for r in held if r["token"].lower() == wanted] or [
        r for r in held if r["symbol"].lower() == wanted
    ]
    if not matching:
        known = near(asset, [r["symbol"] for r in held])
        raise CommandFailed(
            f"{source} {account} never held {asset!r}; it holds, or held: "
            f"{', '.join(dict.fromkeys(known)) or 'nothing yet'}",
            2,
        )
    if len(matching) > 1:
        raise CommandFailed(
            f"{asset} is {len(matching)} tokens of {source} {account}: name one: "
            + ", ".join(r["token"] for r in matching[:8]),
            2,
        )
    return matching[0]["token"], matching[0]["symbol"]


def _within(
    con: duckdb.DuckDBPyConnection, source: str, account: str, token: str, symbol: str, day: date
) -> None:
    """CommandFailed (2) for a day the balance does not reach, saying which days it has."""
    ((first, last),) = con.execute(
        "SELECT min(date), max(date) FROM curated.daily_balances WHERE source = ? AND account = ? "
        "AND token = ?",
        [source, account, token],
    ).fetchall()
    if first is None:
        raise CommandFailed(
            f"no leg of {symbol} of {source} {account} counts, so it has no "
            "balance: FROM curated.tx_unified shows them",
            2,
        )
    if not first <= day <= last:
        raise CommandFailed(
            f"{symbol} of {source} {account} has balances from {first}, its first movement, to "
            f"{last}, the last day covered; {day} is not among them",
            2,
        )
