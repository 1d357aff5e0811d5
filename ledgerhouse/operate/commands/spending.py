"""`airflow warehouse units`: what was spent, what it would have been, and what is left.

`ops.spending` (source, day, calls, units, full_refresh_calls, full_refresh_units) and
`ops.budgets` (source, measure, period, allowed) say so; of books without them only what the call
log knows is shown.
"""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta
from typing import Any

from ledgerhouse.operate.commands.books import accounts, opened
from ledgerhouse.operate.commands.tables import rows
from ledgerhouse.publish.books import has
from ledgerhouse.warehouse.spending_views import CALLED

MEASURES = ("calls", "units")
PACE = timedelta(days=7)  # the forecast goes on as these days went


def units(args: Any) -> int:
    """Per source and measure; sources whose calls are free have calls alone."""
    with opened(args.output) as (con, answer):
        sources = sorted({source for source, _ in accounts(con, args.source)})
        has_spending = has(con, "ops.spending")
        spent = rows(con, "FROM ops.spending" if has_spending else CALLED)
        budgets = rows(con, "FROM ops.budgets") if has(con, "ops.budgets") else []
        today = datetime.now(UTC).date()
        sums = []
        for source in sources:
            mine = [row for row in spent if row["source"] == source]
            for measure in MEASURES:
                if measure == "calls" or any(row["units"] for row in mine):
                    sums.append(
                        {
                            "source": source,
                            "measure": measure,
                            **summed(
                                mine,
                                measure,
                                today,
                                {
                                    b["period"]: int(b["allowed"])
                                    for b in budgets
                                    if (b["source"], b["measure"]) == (source, measure)
                                },
                            ),
                        }
                    )
        answer.table(
            "spending",
            "Calls and units",
            sums,
            {
                "source": "source",
                "measure": "",
                "today": "today",
                "month": "this month",
                "all": "in all",
                "full_refresh": "full refreshes",
                "saved": "saved",
                "forecast": "month, at this pace",
                "left_today": "left today",
                "left_month": "left this month",
            },
            marked=_is_over,
            right=("saved",),
        )
        answer.say(
            "Full refreshes: everything read again at every sync, with the same endpoints "
            "and page sizes."
            if has_spending
            else "These books do not say what full refreshes would have cost (no ops.spending).",
            style="dim",
        )
        if not budgets:
            answer.say("No budget is set.", style="dim")
    return 0


def summed(spent, measure: str, today: date, allowed: dict[str, int]) -> dict[str, Any]:
    """One measure of one source: `spent` has a row a day, `allowed` the budget by period."""
    first = today.replace(day=1)
    day, month = (
        sum(r[measure] or 0 for r in spent if r["day"] >= since) for since in (today, first)
    )
    full = [r for r in spent if r[f"full_refresh_{measure}"] is not None]
    refreshed, ours = (
        sum(r[name] or 0 for r in full) for name in (f"full_refresh_{measure}", measure)
    )
    known = [r for r in spent if today - PACE <= r["day"] < today]
    days = min(PACE.days, (today - min(r["day"] for r in spent)).days) if spent else 0
    left = calendar.monthrange(today.year, today.month)[1] - today.day
    # Whole days only tell the pace; of today what is more, so far or by that pace.
    pace = sum(r[measure] or 0 for r in known) / days if days else None
    return {
        "today": day,
        "month": month,
        "all": sum(r[measure] or 0 for r in spent),
        "full_refresh": refreshed if full else None,
        "saved": f"{100 * (1 - ours / refreshed):.1f} %" if refreshed else None,
        "forecast": None if pace is None else round(month - day + max(day, pace) + left * pace),
        "allowed_today": allowed.get("day"),
        "allowed_month": allowed.get("month"),
        "left_today": allowed["day"] - day if "day" in allowed else None,
        "left_month": allowed["month"] - month if "month" in allowed else None,
    }


def _is_over(row) -> bool:
    """Nothing is left, or the month's pace goes over what is allowed."""
    return any(
        row[name] is not None and row[name] <= 0 for name in ("left_today", "left_month")
    ) or (row["allowed_month"] is not None and (row["forecast"] or 0) > row["allowed_month"])
