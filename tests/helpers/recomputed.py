"""Random raw rows as a loader would leave them, and what curated must then hold, in plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext

from extract.core.datasets import DATASETS

DAY = timedelta(days=1)
KEPT = (
    "domain, source, account, chain, txid, leg, ts, kind, token, symbol, amount, amount_text, "
    "is_overflow, is_settled, is_scam, counts, price, fills"
)


def opened(path):
    import duckdb

    return duckdb.connect(str(path))


# ---- raw rows, as a loader would leave them


def put(con, name: str, rows: list[dict], batch: str) -> None:
    """Replace rows by key and mark the days they touch, old days included, in one transaction."""
    if not rows:
        return
    dataset, columns = DATASETS[name], list(rows[0])
    key = ", ".join(dataset.key)
    marks = (
        f"INSERT INTO ops.touched_days SELECT DISTINCT '{name}', CAST({{}} AS DATE), '{batch}' FROM"
    )
    con.execute("BEGIN")
    con.execute(f"CREATE OR REPLACE TEMP TABLE news AS FROM {dataset.table} LIMIT 0")
    con.execute(
        f"INSERT INTO news ({', '.join(columns)}, row_hash, batch_id) VALUES "
        + ", ".join([f"({', '.join('?' * len(columns))}, 0, '{batch}')"] * len(rows)),
        [value for row in rows for value in row.values()],
    )
    if dataset.dimension:
        con.execute(f"{marks.format('changed_at')} news")
    else:
        con.execute(
            f"{marks.format('ts')} (SELECT ts FROM news UNION ALL SELECT ts FROM "
            f"{dataset.table} SEMI JOIN news USING ({key}))"
        )
    con.execute(f"DELETE FROM {dataset.table} WHERE ({key}) IN (SELECT ({key}) FROM news)")
    con.execute(f"INSERT INTO {dataset.table} FROM news")
    con.execute("COMMIT")


def money(name: str, text: str | None) -> dict:
    value = Decimal(text) if text is not None else None
    fits = value is not None and abs(value) < Decimal(10) ** 20
    return {f"{name}_text": text, name: str(value) if fits else None}


def amount_text(rng: random.Random) -> str:
    return rng.choice(
        [
            f"{rng.randint(0, 10**9)}.{rng.randint(0, 10**18 - 1):018d}",
            "16179.999999999998",
            "1e24",
            "1e40",
            "0.000000000000000001",
            "90000000000000000000",
            f"{rng.randint(1, 9)}",
            "99999999999999999999.9999999",
            "5e-7",
        ]
    )


def batch_of(rng: random.Random, base: datetime, number: int) -> dict[str, list[dict]]:
    """Rows of every dataset: some new, some replacing or moving earlier ones."""
    tables: dict[str, dict[tuple, dict]] = {
        name: {} for name in DATASETS if name not in ("balances", "positions", "onchain_chains")
    }

    def add(name, row):
        tables[name][tuple(row[k] for k in DATASETS[name].key)] = row

    def moment():
        return base + timedelta(
            microseconds=rng.choice(
                [
                    rng.randrange(9 * 86_400_000_000),
                    rng.randrange(9) * 86_400_000_000,
                    rng.randrange(1, 9) * 86_400_000_000 - 1,
                ]
            )
        )

    for token in rng.sample(["usdc", "eth", "odd", "deep", "coarse"], 2):
        decimals = {"usdc": 6, "eth": 18, "odd": None, "deep": 24, "coarse": rng.choice([0, 2])}
        add(
            "onchain_tokens",
            {
                "source": "debank",
                "chain": "eth",
                "token": token,
                "symbol": f"{token.upper()}{number % 2}",
                "name": token,
                "decimals": decimals[token],
                "is_verified": None,
                "changed_at": base + timedelta(hours=7 * number),
            },
        )
    for _ in range(rng.randint(1, 8)):
        ident, ts = rng.randint(1, 40), moment()
        order = rng.choice([None, "o1", "o2", "o3"])
        add(
            "exchanges_ledger",
            {
                "source": "kraken",
                "account": rng.choice(["main", "cold"]),
                "entry_id": f"e{ident}",
                "ts": ts,
                "kind": rng.choice(["trade", "deposit", "staking"]),
                "is_settled": rng.choice([True, True, False, None]),
                "asset": rng.choice(["BTC", "ETH"]),
                **money("amount", rng.choice(["", "-"]) + amount_text(rng)),
                "order_id": order,
                "vanished_at": rng.choice([None, None, None, base]),
            },
        )
        add(
            "exchanges_trades",
            {
                "source": "kraken",
                "account": "main",
                "symbol": "BTC/USD",
                "trade_id": f"t{ident}",
                "ts": ts + timedelta(hours=rng.randint(-40, 40)),
                "order_id": order or "o1",
                **money("price", rng.choice(["50000", "50000", "1.5"])),
                "vanished_at": rng.choice([None, None, None, base]),
            },
        )
    for _ in range(rng.randint(1, 8)):
        ident, ts = f"0x{rng.randint(1, 40)}", moment()
        scam, ok = rng.random() < 0.2, rng.random() < 0.9
        who = {
            "source": "debank",
            "account": "0xme",
            "chain": "eth",
            "tx_id": ident,
            "vanished_at": rng.choice([None, None, None, base]),
        }
        add(
            "onchain_transactions",
            {
                **who,
                "ts": ts,
                "category": rng.choice(["send", "receive", None]),
                "status": int(ok),
                "is_scam": scam,
                "pays_gas": rng.choice([True, False, None]),
                **money("gas", rng.choice(["0", "0.002", "1e24", None])),
            },
        )
        tables["onchain_transfers"] = {
            k: row for k, row in tables["onchain_transfers"].items() if row["tx_id"] != ident
        }
        for leg, way in [(1, "in"), (1, "out"), (2, "in")][: rng.randint(1, 3)]:
            add(
                "onchain_transfers",
                {
                    **who,
                    "direction": way,
                    "leg": leg,
                    "ts": ts,
                    "token": rng.choice(["usdc", "eth", "odd", "deep", "coarse", "nameless"]),
                    **money("amount", amount_text(rng)),
                    "is_scam": scam,
                    "is_settled": ok,
                },
            )
    return {name: list(rows.values()) for name, rows in tables.items()}


def load_batch(con, rng, base, number) -> None:
    batch, rows = f"b{number}", batch_of(rng, base, number)
    gone = [(r["tx_id"],) for r in rows["onchain_transactions"]]
    con.execute(  # all legs of a transaction are replaced together
        "INSERT INTO ops.touched_days SELECT DISTINCT 'onchain_transfers', CAST(ts AS DATE), $b "
        "FROM raw.onchain_transfers WHERE tx_id IN (SELECT unnest($ids))",
        {"b": batch, "ids": [i for (i,) in gone]},
    )
    con.execute(
        "DELETE FROM raw.onchain_transfers WHERE tx_id IN (SELECT unnest($ids))",
        {"ids": [i for (i,) in gone]},
    )
    for name, these in rows.items():
        put(con, name, these, batch)


# ---- the same meaning once more, in Python


def dicts(con, query: str) -> list[dict]:
    cursor = con.execute(query)
    names = [d[0] for d in cursor.description]
    return [dict(zip(names, row)) for row in cursor.fetchall()]


def scaled(amount, decimals):
    if amount is None or decimals is None or decimals >= 18:
        return amount
    value = amount.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return value if abs(value) < 10**20 else None


def expected_legs(con) -> list[tuple]:
    """Every row of tx_unified (columns KEPT), from the raw tables."""
    trades = defaultdict(list)
    for t in dicts(con, "FROM raw.exchanges_trades WHERE vanished_at IS NULL"):
        trades[t["source"], t["account"], t["order_id"]].append(t)
    tokens = {t["token"]: t for t in dicts(con, "FROM raw.onchain_tokens")}
    out = []
    for e in dicts(con, "FROM raw.exchanges_ledger"):
        near = (
            [
                t
                for t in trades[e["source"], e["account"], e["order_id"]]
                if abs((t["ts"].date() - e["ts"].date()).days) <= 1
            ]
            if e["order_id"]
            else []
        )
        prices = {t["price"] for t in near}
        settled = bool(e["is_settled"]) and e["vanished_at"] is None
        kind = e["kind"] if e["kind"] in ("trade", "deposit") else "unknown"
        out.append(
            (
                "exchange",
                e["source"],
                e["account"],
                "",
                e["entry_id"],
                "entry",
                e["ts"],
                kind,
                e["asset"],
                e["asset"],
                e["amount"],
                e["amount_text"],
                e["amount"] is None,
                settled,
                False,
                settled and e["amount"] is not None,
                prices.pop() if len(prices) == 1 else None,
                len(near),
            )
        )
    ways = defaultdict(set)
    for t in dicts(con, "FROM raw.onchain_transfers"):
        ways[t["tx_id"]].add(t["direction"])
    transactions = {x["tx_id"]: x for x in dicts(con, "FROM raw.onchain_transactions")}

    def leg(row, name, kind, token, size, text, sign, settled, scam):
        known = tokens.get(token, {})
        size = scaled(size, known.get("decimals"))
        out.append(
            (
                "onchain",
                row["source"],
                row["account"],
                row["chain"],
                row["tx_id"],
                name,
                row["ts"],
                kind,
                f"{row['chain']}:{token}",
                known.get("symbol"),
                None if size is None else sign * size,
                text if sign > 0 else f"-{text}",
                size is None,
                settled,
                scam,
                settled and not scam and size is not None,
                None,
                0,
            )
        )

    for t in dicts(con, "FROM raw.onchain_transfers"):
        category = transactions[t["tx_id"]]["category"]
        kind = (
            "trade"
            if len(ways[t["tx_id"]]) == 2
            else {("receive", "in"): "deposit", ("send", "out"): "withdrawal"}.get(
                (category, t["direction"]), "unknown"
            )
        )
        leg(
            t,
            f"{t['direction']}:{t['leg']}",
            kind,
            t["token"],
            t["amount"],
            t["amount_text"],
            1 if t["direction"] == "in" else -1,
            t["is_settled"] and t["vanished_at"] is None,
            t["is_scam"],
        )
    for x in transactions.values():
        if x["pays_gas"] and x["gas_text"] not in (None, "0"):
            leg(
                x,
                "gas",
                "fee",
                x["chain"],
                x["gas"],
                x["gas_text"],
                -1,
                x["vanished_at"] is None,
                False,
            )
    return out


def fitting(value: Decimal, digits: int):
    return value if abs(value) < Decimal(10) ** digits else None


def fitting_wide(leg: tuple):
    """Its amount, exact or as text, where six digits of it can be held."""
    value = leg[10] if leg[10] is not None else leg[11] and Decimal(leg[11])
    return value if value is not None and abs(value) < 10**32 else None


def expected_flows(legs: list[tuple]) -> dict[tuple, tuple]:
    """(date, domain, source, account, token): inflow, outflow, net, net_wide, and five counts."""
    groups = defaultdict(list)
    for row in legs:
        groups[(row[6].date(), row[0], row[1], row[2], row[8])].append(row)
    flows = {}
    for key, rows in groups.items():
        inflow = fitting(sum((r[10] for r in rows if r[15] and r[10] > 0), Decimal(0)), 20)
        outflow = fitting(-sum((r[10] for r in rows if r[15] and r[10] < 0), Decimal(0)), 20)
        wide = [
            (Decimal(r[11]) if r[10] is None else r[10]).quantize(Decimal("1e-6"), ROUND_HALF_UP)
            for r in rows
            if r[15] or (r[12] and r[13] and not r[14])
        ]
        flows[key] = (
            inflow,
            outflow,
            None if None in (inflow, outflow) else inflow - outflow,
            sum((w for w in wide if abs(w) < 10**32), Decimal(0)),
            sum(r[15] for r in rows),
            sum(r[12] and r[13] and not r[14] for r in rows),
            sum(not r[13] and not r[14] for r in rows),
            sum(r[14] for r in rows),
            sum(r[13] and not r[14] and fitting_wide(r) is None for r in rows),
        )
    return flows


def assert_curated_is_the_truth(path) -> None:
    with localcontext() as exact, opened(path) as con:
        exact.prec = 100
        legs = expected_legs(con)
        found = con.execute(f"SELECT {KEPT} FROM curated.tx_unified").fetchall()
        assert sorted(found, key=str) == sorted(legs, key=str)
        flows = expected_flows(legs)
        found = con.execute(
            "SELECT date, domain, source, account, token, inflow, outflow, net, "
            "net_wide, legs, overflow_legs, unsettled_legs, scam_legs, unknown_legs "
            "FROM curated.daily_flows"
        ).fetchall()
        assert len(found) == len(flows)
        assert {row[:5]: row[5:] for row in found} == flows
        assert_balances(con, flows)
        assets = {r[0] for r in con.execute("SELECT token FROM curated.assets").fetchall()}
        assert {k[4] for k in flows if k[1] == "exchange"} <= assets
        assert con.execute("""
            SELECT count(*) FROM raw.onchain_tokens t LEFT JOIN curated.assets a
            ON a.token = concat(t.chain, ':', t.token)
            WHERE (t.symbol, t.decimals) IS DISTINCT FROM (a.symbol, a.decimals)""").fetchone() == (
            0,
        )


def assert_balances(con, flows) -> None:
    """daily_balances: every day from the first movement on, and the running sums."""
    last = max(day for day, *_ in flows)
    moves = defaultdict(dict)
    for key, flow in flows.items():
        if flow[4] + flow[5]:
            moves[key[1:]][key[0]] = flow
    expected = {}
    for who, days in moves.items():
        day, balance, wide, lost, exact = min(days), Decimal(0), Decimal(0), False, True
        while day <= last:
            if day in days:
                net = days[day][2]
                lost = lost or net is None
                exact = exact and not days[day][5] and net is not None
                balance, wide = balance + (net or 0), wide + days[day][3]
            shown = None if lost else fitting(balance, 20)
            expected[(day, *who)] = (shown, fitting(wide, 32), exact and shown is not None)
            day += DAY
    found = con.execute(
        "SELECT date, domain, source, account, token, balance, balance_wide, "
        "is_exact FROM curated.daily_balances"
    ).fetchall()
    assert len(found) == len(expected)
    assert {row[:5]: row[5:] for row in found} == expected


def covered(con, source, account, dataset, start, end) -> None:
    con.execute(
        "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
        "reason, run_id, batch_id, recorded_at) "
        "VALUES (?, ?, ?, ?, ?, ?, 'empty cursor', 'r', 'b', ?)",
        [source, account, dataset, start, end, end, end],
    )


def expected_reconciliation(con, legs) -> dict[tuple, tuple]:
    """(source, account, token): snapshot, reported, computed (wide where not exact), status."""
    reach, snapshots, expected = {}, defaultdict(set), {}
    for source, account, dataset, start, end in con.execute(
        "SELECT source, account, dataset, start_ts, end_ts FROM ops.coverage ORDER BY 4, 5"
    ).fetchall():
        who = source, account
        if dataset in ("balances", "positions"):
            snapshots[who].add(start)
        elif who not in reach or start <= reach[who]:
            reach[who] = max(end, reach.get(who, end))
    for who, instants in snapshots.items():
        fit = [ts for ts in instants if who in reach and ts <= reach[who]]
        ts = max(fit or instants)
        mine = [r for r in legs if r[1:3] == who and r[6] < ts]
        parts, whole = defaultdict(list), defaultdict(Decimal)
        for token, text in con.execute(
            "SELECT token, amount_text FROM raw.balances WHERE (source, account, ts) = (?, ?, ?)",
            [*who, ts],
        ).fetchall():
            parts[token].append(Decimal(text))
        for row in mine:
            whole[row[8]] += row[10] if row[15] else 0
        for token in {r[8] for r in mine} | set(parts):
            about = [r for r in mine if r[8] == token]
            scam = bool(about) and all(r[14] for r in about)
            if scam and token not in parts:
                continue  # seen only in scams
            reported = sum(parts[token], Decimal(0))
            unknown = any(r[10] is None and not r[12] and r[13] and not r[14] for r in about)
            inexact = [r for r in about if r[12] and r[13] and not r[14]]
            if not inexact:
                turnover = sum((abs(r[10]) for r in about if r[15]), Decimal(0))
                allowed = (turnover + Decimal("0.02")) * Decimal("3e-16") * (who[0] == "debank")
                distance = abs(reported - whole[token])
                if distance > allowed:
                    status = "explained" if scam else "off"
                elif unknown:
                    status = "not_reconcilable"
                else:
                    status = "within_tolerance" if distance else "exact"
                expected[(*who, token)] = (
                    ts,
                    reported,
                    whole[token],
                    status if fit else "awaiting_coverage",
                )
            else:
                expected[(*who, token)] = (ts, None, None, None if fit else "awaiting_coverage")
    return expected
