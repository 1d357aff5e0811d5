"""The demo's report as three short tables; nothing that is off is ever left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ledgerhouse.operate.commands.tables import short
from stack.report import AGREE

TOP = 5  # reconciled assets shown per account
Row = Mapping[str, Any]


def show(console: Console, report: Mapping[str, Any]) -> None:
    """Print the three tables."""
    console.print(_balances(report["reconciliation"]))
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


def _balances(rows: Sequence[Row]) -> Table:
    table = _table(
        "Balances: computed from the history, and reported by the vendor",
        "account,asset,computed,reported,difference,status",
        "computed,reported,difference",
    )
    for column, width in zip(table.columns, (18, 12, 0, 0, 10, 10), strict=True):
        column.min_width = width  # a narrow terminal shortens the amounts first
    for key in dict.fromkeys((r["source"], r["account"]) for r in rows):
        balances = [r for r in rows if (r["source"], r["account"]) == key]
        good = [r for r in balances if r["status"] in AGREE]
        bad = [r for r in balances if r["status"] not in AGREE]
        for r in [*bad, *good[:TOP]]:  # most entries first
            table.add_row(
                f"{r['source']} {short(r['account'], 11)}",
                short(r["symbol"], 12) + (f" on {r['chain']}" if r["chain"] else ""),
                *(short(r[name] or "overflow", 20) for name in ("computed", "reported")),
                r["difference"] or "overflow",
                r["status"],
                style="bold red" if r in bad else None,
            )
        more = f"{len(good) - TOP} more alike" if len(good) > TOP else ""
        count = f"{len(good)} of {len(balances)} reconciled"
        table.add_row("", "", "", more, "", count, style="bold")
        table.add_section()
    return table


def _fetched(rows: Sequence[Row]) -> Table:
    numbers = "new,changed,calls,full calls,saved,units,full units,saved "
    title = "What was fetched, and what a full refresh would have cost"
    table = _table(title, f"run,source,{numbers}", numbers)
    for r in rows:
        cells = []
        for name in ("calls", "units"):
            full = (r["full_refresh"] or {}).get(name)
            paid = name == "calls" or r["source"] == "debank"
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
