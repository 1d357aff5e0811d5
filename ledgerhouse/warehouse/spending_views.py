"""Views of what was spent, and of what a full refresh would have cost instead: ops.spending and
ops.full_refreshes.

The full refresh is computed from what the warehouse knows: somebody without coverage asks, at
every sync of ours, for the whole history again, of the same accounts, by the same endpoints and
page sizes (`Source.whole`), over the rows that were known by then. No backfill counts in it, and
no retry: the savings shown are the least there were.
"""

from __future__ import annotations

from collections.abc import Sequence

from extract.core.datasets import DATASETS, Dataset
from ledgerhouse.warehouse.ops_tables import SHARED
from ledgerhouse.warehouse.views import View, shared

PARTS = ("wallet", "symbol", "chain")  # by what a vendor's list may have to be asked for
# Rows known to the vendor, as steps: what came (+) and went (-), and when by the vendor's clock.
_ROWS = """
    SELECT l.source, l.endpoint, l.page, l.more, account, {part} AS part, {at} AS moment,
           {step} AS step
    FROM raw.{dataset} r JOIN ops.listings l ON l.source = r.source AND l.dataset = '{listed}'
    WHERE {where}"""
_FULL_REFRESHES = """
WITH runs AS (
    SELECT source, account, run_id, min(called_at) AS moment, max(answered_at) AS clock
    FROM ops.api_calls WHERE dag_id = 'sync' AND NOT starts_with(run_id, 'backfill__')
    GROUP BY ALL HAVING max(answered_at) IS NOT NULL
), asked AS (
    SELECT runs.*, endpoint FROM runs JOIN ops.listings USING (source)
), known AS (
    SELECT source, endpoint, page, more, account, moment, sum(step) AS step,
           sum(sum(step)) OVER list AS rows, row_number() OVER list AS place
    FROM ({rows}) GROUP BY source, endpoint, page, more, account, part, moment
    WINDOW list AS (PARTITION BY source, endpoint, account, part ORDER BY moment)
), changes AS (
    SELECT source, endpoint, account, moment, greatest(1, (rows + more + page - 1) // page)
        - CASE place WHEN 1 THEN 0 ELSE greatest(1, (rows - step + more + page - 1) // page) END
        AS change
    FROM known
), steps AS (
    SELECT source, endpoint, account, moment, sum(sum(change)) OVER (
        PARTITION BY source, endpoint, account ORDER BY moment) AS calls
    FROM changes GROUP BY source, endpoint, account, moment
), prices AS (
    SELECT source, endpoint, arg_max(units, called_at) AS price
    FROM ops.api_calls WHERE error IS NULL GROUP BY ALL
)
SELECT a.source, a.run_id, min(a.moment) AS moment, sum(coalesce(s.calls, 1))::BIGINT AS calls,
       sum(coalesce(s.calls, 1) * coalesce(p.price, 0))::BIGINT AS units
FROM asked a
ASOF LEFT JOIN steps s ON s.source = a.source AND s.endpoint = a.endpoint
    AND s.account = a.account AND s.moment <= a.clock
LEFT JOIN prices p ON p.source = a.source AND p.endpoint = a.endpoint
GROUP BY ALL
"""
# The same as far as the call log knows, for books that are older than the view.
CALLED = """
    SELECT source, called_at::DATE AS day, count(*) AS calls, sum(units)::BIGINT AS units,
        NULL::BIGINT AS full_refresh_calls, NULL::BIGINT AS full_refresh_units
    FROM ops.api_calls GROUP BY ALL"""
SPENDING = View(
    "ops.spending",
    "Calls and units a day and source, and what reading everything again at every sync of the day "
    "would have cost instead (ops.full_refreshes)",
    shared("source")
    | {
        "day": "UTC day of the calls, by our clock (ops.api_calls)",
        "calls": "HTTP requests made, of every DAG, retries too",
        "units": SHARED["units"],
        "full_refresh_calls": "calls that a full refresh in the place of each sync of the day would "
        "have made; NULL where there was no sync",
        "full_refresh_units": "units that it would have spent; NULL where there was no sync",
    },
    """
SELECT c.source, c.day, c.calls, c.units, f.calls AS full_refresh_calls,
       f.units AS full_refresh_units
FROM (SELECT source, called_at::DATE AS day, count(*)::BIGINT AS calls,
             sum(units)::BIGINT AS units FROM ops.api_calls GROUP BY ALL) c
LEFT JOIN (SELECT source, moment::DATE AS day, sum(calls)::BIGINT AS calls,
                  sum(units)::BIGINT AS units FROM ops.full_refreshes GROUP BY ALL) f
    USING (source, day)
""",
)


def views() -> list[View]:
    """The views, in the order in which they need each other."""
    rows = [part for dataset in DATASETS.values() for part in _rows(dataset)]
    full_refreshes = View(
        "ops.full_refreshes",
        "What a full refresh in the place of each run of the DAG sync (backfills are none) would "
        "have cost: of the accounts the run asked, all pages of the rows that the vendor had by "
        "the end of it and we know of (first_seen_at, vanished_at), at least one a list, without "
        "any retry, at the price of a call to the endpoint as last paid; moment: the first call",
        shared("source")
        | {
            "run_id": "the run of the DAG sync",
            "moment": "its first call, by our clock, UTC",
            "calls": "calls it would have made",
            "units": "units it would have spent",
        },
        _FULL_REFRESHES.format(rows=" UNION ALL ".join(rows)),
    )
    return [full_refreshes, SPENDING]


def _rows(dataset: Dataset) -> list[str]:
    """The queries of _ROWS that count the rows of a dataset."""
    parts = [c for c in PARTS if any(column.name == c for column in dataset.columns)]
    fields = {"dataset": dataset.name, "listed": dataset.name, "part": _choice("asked_by", parts)}
    if not dataset.moves_balances:
        per_list = "GROUP BY l.source, l.endpoint, l.page, l.more, account, "
        # A list that was empty is asked for, too.
        return [
            _ROWS.format(
                **fields | {"part": "''"},
                step=1,
                at="min(first_seen_at)",
                where=f"l.listed <> '' {per_list} {_choice('listed', parts)}",
            )
        ] + [
            _ROWS.format(
                **fields | {"listed": other.name},
                step=0,
                at="min(first_seen_at)",
                where=f"l.asked_by <> '' {per_list} {fields['part']}",
            )
            for other in DATASETS.values()
            if other.has_history and any(c.name in parts for c in other.columns)
        ]
    if not dataset.has_history:
        return []
    return [
        _ROWS.format(**fields, at="first_seen_at", step=1, where="l.listed = ''"),
        _ROWS.format(
            **fields, at="vanished_at", step=-1, where="l.listed = '' AND vanished_at IS NOT NULL"
        ),
    ]


def _choice(column: str, parts: Sequence[str]) -> str:
    """SQL of the value in whichever of the columns `parts` the listing names."""
    cases = "".join(f" WHEN '{part}' THEN r.{part}" for part in parts)
    return f"CASE l.{column}{cases} ELSE '' END" if parts else "''"
