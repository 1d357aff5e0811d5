"""Expectations of the raw tables: what every source must deliver, whatever its API says.

What a vendor may send, and what moves no balance, is a warning: critical is what the product itself
must keep (keys, versions, legs, its own words). No expectation can see a NULL `ts` (the date filter excludes it): raw tables declare it NOT NULL.
"""

from __future__ import annotations

from typing import Any

from extract.core.datasets import DATASETS
from ledgerhouse.check.date_filter import DateFilter
from ledgerhouse.check.expectations import KINDS, among, at_least, native, no_rows, present, unique
from ledgerhouse.load.running_balances import NONE

TX_ID = "0x[0-9a-fA-F]{{64}}"
# A record that is kept in raw.rejected leaves a hole that is named there.
UNREJECTED = (
    "ANTI JOIN (SELECT source, account FROM raw.rejected WHERE starts_with(dataset, 'onchain_')) "
    "USING (source, account)"
)
BESIDE = (  # every query names its batch
    "UNION ALL SELECT source, account, wallet, asset, ts, entry_id, NULL, NULL, NULL FROM {batch} "
    "WHERE false"
)
CLOCK_SKEW = "INTERVAL 1 HOUR"  # vendors' clocks against each other


def _fits(dataset: str) -> Any:
    """The expectation that every amount whose text is there fits DECIMAL(38,18)."""
    names = [c.name for c in DATASETS[dataset].columns]
    money = [n for n in names if f"{n}_text" in names]
    key = ", ".join(DATASETS[dataset].key)
    texts = ", ".join(f"{n}_text" for n in money)
    return no_rows(
        "amounts_fit",
        "warning",
        "Amounts fit DECIMAL(38,18); the others keep their text, are flagged and do not count",
        f"SELECT {key}, {texts} FROM {{batch}} WHERE "
        + " OR ".join(f"({n}_text IS NOT NULL AND {n} IS NULL)" for n in money),
    )


def _raw(dataset: str) -> list[Any]:
    """The expectations of every raw table: its key once, a batch on record, no future rows."""
    key = ", ".join(DATASETS[dataset].key)
    return [
        unique(*DATASETS[dataset].key),
        no_rows(
            "batch_known",
            "warning",
            "Every row names a load on record in ops.batches",
            f"SELECT {key}, batch_id FROM {{batch}} ANTI JOIN ops.batches USING (batch_id)",
        ),
        no_rows(
            "versions_in_order",
            "critical",
            "A version is not older than its row",
            f"SELECT {key}, first_seen_at, changed_at FROM {{batch}} "
            "WHERE changed_at < first_seen_at",
        ),
        no_rows(
            "no_future",
            "warning",
            "Nothing was met before it happened",
            f"SELECT {key}, ts, changed_at FROM {{batch}} WHERE ts > changed_at + {CLOCK_SKEW}",
        ),
        _fits(dataset),
        *(
            [
                no_rows(
                    "nothing_vanished",
                    "warning",
                    "The vendor still lists what it once listed",
                    f"SELECT {key}, ts, vanished_at FROM {{batch}} WHERE vanished_at IS NOT NULL",
                )
            ]
            if DATASETS[dataset].has_history
            else []
        ),
    ]


def ledger(dates: DateFilter) -> list[Any]:
    """Entries of the exchanges' ledgers."""
    return [
        *_raw("exchanges_ledger"),
        present("entry_id"),
        present("asset", "warning"),
        present("kind"),
        present("is_settled"),
        among("kind", KINDS),
        native(
            "ColumnValuesToNotBeInSet",
            "kind_understood",
            "warning",
            "The exchange's type is one we know; an unknown one counts into balances all the same",
            column="kind",
            value_set=["unknown"],
        ),
        no_rows(
            "settled_entries_have_amounts",
            "warning",
            "A settled entry says how much it moved; one that does not is flagged and does not count",
            "SELECT source, account, entry_id, type FROM {batch} "
            "WHERE is_settled AND amount_text IS NULL",
        ),
        # Of the whole history: a break holds its account until a load heals it.
        no_rows(
            "running_balances_follow",
            "critical",
            "Every running balance follows from the one before it",
            "SELECT source, account, wallet, token, ts, entry_id, missing_text, suspect, explanation "
            f"FROM ops.chain_breaks {BESIDE}",
        ),
        no_rows(
            "running_balances_there",
            "warning",
            "The balances that entries state are running balances; a wallet's that are none are not "
            "used",
            "SELECT DISTINCT source, account, wallet, NULL, NULL, NULL, NULL, NULL, status "
            f"FROM ops.running_balances WHERE status = '{NONE}' {BESIDE}",
        ),
    ]


def trades(dates: DateFilter) -> list[Any]:
    """Fills of the exchanges. They move no balance: what is odd about one stops nothing."""
    return [
        *_raw("exchanges_trades"),
        present("side", "warning"),
        among("side", ("buy", "sell"), "warning"),
        present("price_text", "warning"),
        at_least("price", 0, "warning", strict=True),
        at_least("amount", 0, "warning"),
    ]


def transactions(dates: DateFilter) -> list[Any]:
    """Transactions on chain."""
    return [
        *_raw("onchain_transactions"),
        no_rows(
            "tx_id_well_formed",
            "warning",
            "A transaction hash is 0x and 64 hex digits",
            "SELECT source, account, chain, tx_id FROM {batch} "
            f"WHERE NOT regexp_full_match(tx_id, '{TX_ID}')",
        ),
        among("status", (0, 1), "warning"),  # NULL is legal: not a transaction of its own
        at_least("gas", 0, "warning"),
        no_rows(
            "gas_told",
            "info",
            "The source says what the account's own transactions cost",
            "SELECT source, account, chain, tx_id FROM {batch} WHERE pays_gas AND gas_text IS NULL",
        ),
    ]


def transfers(dates: DateFilter) -> list[Any]:
    """Transfers on chain, the legs of transactions."""
    return [
        *_raw("onchain_transfers"),
        no_rows(
            "tx_id_well_formed",
            "warning",
            "A transaction hash is 0x and 64 hex digits",
            "SELECT source, account, chain, tx_id FROM {batch} "
            f"WHERE NOT regexp_full_match(tx_id, '{TX_ID}')",
        ),
        present("token", "warning"),
        present("amount_text", "warning"),
        present("direction"),
        among("direction", ("in", "out")),
        at_least("leg", 1),
        at_least("amount", 0, "warning"),
        no_rows(
            "legs_without_gaps",
            "critical",
            "Legs of a direction are numbered 1, 2, … n",
            "SELECT source, account, chain, tx_id, direction, count(*) AS legs, "
            f"max(leg) AS last FROM {{batch}} {UNREJECTED} GROUP BY ALL HAVING max(leg) <> count(*)",
        ),
        no_rows(
            "transaction_there",
            "critical",
            "Every transfer has its transaction, at its time",
            "SELECT t.source, t.account, t.chain, t.tx_id, t.ts FROM {batch} t "
            f"ANTI JOIN {dates.rows('raw.onchain_transactions')} x "
            f"USING (source, account, chain, tx_id, ts) {UNREJECTED}",
        ),
    ]


def balances(dates: DateFilter) -> list[Any]:
    """Balances as the sources report them."""
    return [
        *_raw("balances"),
        present("amount_text", "warning"),
        at_least("amount", 0, "warning"),
    ]


def adjustments(dates: DateFilter) -> list[Any]:
    """Movements that no vendor lists."""
    return [
        unique("adjustment_id"),
        present("token"),
        present("amount", "warning"),
    ]
