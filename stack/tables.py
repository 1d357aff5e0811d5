"""The demo's report as short tables; nothing that is off is ever left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from extract.core.text import visible
from extract.sources import get
from ledgerhouse.operate.commands.tables import short

STATUSES = (
    "exact",
    "within_tolerance",
    "explained",
    "not_reconcilable",
    "awaiting_coverage",
    "settling",
    "off",
)
WRONG = STATUSES.index("not_reconcilable")  # from here on
Row = Mapping[str, Any]


def show(console: Console, report: Mapping[str, Any]) -> None:
    """Print the tables."""
    console.print(_statuses(report["reconciliation"]))
    console.print("What each status means: docs/concepts.md, Statuses.\n", style="dim")
    for line in unexplained(report["reconciliation"]):
        console.print(visible(line), markup=False)
    console.print()
    console.print(_fetched(report["fetched"]))
    console.print(savings(report["fetched"]))
    console.print(
        "A full refresh reads everything again with the same endpoints and page sizes "
        "(ops.full_refreshes says how it is counted). Units are counted at "
        "the sandbox's prices: DeBank publishes none.\n",
        style="dim",
    )
    console.print(_checkpoints(report["checkpoints"]))


def savings(fetched: Sequence[Row]) -> str:
    """All syncs together against their full refreshes, in one sentence."""
    syncs = [f for f in fetched if f["full_refresh"]]
    parts = []
    for name in ("calls", "units"):
        ours, full = sum(f[name] for f in syncs), sum(f["full_refresh"][name] for f in syncs)
        parts.append(f"{ours:,} {name} instead of {full:,} ({saving(ours, full)} saved)")
    return f"The syncs together: {', '.join(parts)}."


def saving(ours: int, full: int | None) -> str:
    """How much less, in percent; '' when there is nothing to compare with."""
    return f"{100 * (1 - ours / full):.1f} %" if full else ""


def _table(title: str, columns: str, numbers: str = "") -> Table:
    """An empty table; `columns` and those of them that are `numbers` are parted by commas."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for column in columns.split(","):
        right = column in numbers.split(",")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    return table


def _statuses(rows: Sequence[Row]) -> Table:
    """How many balances have each status, and by what they are explained."""
    accounts = list(dict.fromkeys((r["source"], r["account"]) for r in rows))
    names = [short(account, 12) for _, account in accounts]
    table = _table(
        "Balances reported by the vendor and computed from the history, by status",
        ",".join(["status", *names, "all"]),
        ",".join([*names, "all"]),
    )
    by_status: dict[tuple[int, str], Counter] = defaultdict(Counter)
    for r in rows:
        label = r["status"] + (f": {r['kind']}" if r["kind"] else "")
        by_status[STATUSES.index(r["status"]), label][r["source"], r["account"]] += 1
    for (place, label), counts in sorted(by_status.items()):
        cells = [str(counts[account] or "") for account in accounts]
        table.add_row(label, *cells, str(counts.total()), style="red" if place >= WRONG else None)
    return table


def unexplained(rows: Sequence[Row]) -> list[str]:
    """What neither agrees nor is explained: by how much, since when, and why."""
    lines = []
    for r in sorted(rows, key=lambda r: -STATUSES.index(r["status"])):
        if STATUSES.index(r["status"]) >= WRONG:
            asset = short(r["symbol"], 12) + (f" on {r['chain']}" if r["chain"] else "")
            began = f" between {r['last_good'] or 'the beginning'} and {r['first_bad']}"
            lines.append(
                f"{r['source']} {short(r['account'])} {asset}: {r['status']} by "
                f"{r['difference'] or 'overflow'}{began if r['first_bad'] else ''}; {r['reason']}"
            )
    return lines


def _fetched(rows: Sequence[Row]) -> Table:
    numbers = "new,changed,calls,full calls,saved,units,full units,saved "
    title = "What was fetched, and what a full refresh would have cost"
    table = _table(title, f"run,source,{numbers}", numbers)
    for r in rows:
        cells = []
        for name in ("calls", "units"):
            full = (r["full_refresh"] or {}).get(name)
            paid = name == "calls" or bool(get(r["source"]).units)
            cells += [f"{r[name]:,}" if paid else "", f"{full:,}" if full else ""]
            cells.append(saving(r[name], full))
        table.add_row(r["run"], r["source"], f"{r['new']:,}", f"{r['changed']:,}", *cells)
    return table


def _checkpoints(rows: Sequence[Row]) -> Table:
    runs = list(dict.fromkeys(r["run"] for r in rows))
    title = "Checkpoints: expectations that passed, and that failed by severity"
    table = _table(title, ",".join(["checkpoint", *runs]))
    for checkpoint in sorted({r["checkpoint"] for r in rows}):
        results = {r["run"]: r for r in rows if r["checkpoint"] == checkpoint}
        table.add_row(
            checkpoint,
            *(_counts(results.get(run)) for run in runs),
            style="bold red" if any(r["critical"] for r in results.values()) else None,
        )
    return table


def _counts(result: Row | None) -> str:
    if result is None:
        return "not run"
    failed = [f"{result[name]} {name}" for name in ("critical", "warning", "info") if result[name]]
    return ", ".join([f"{result['passed']} passed", *failed])
