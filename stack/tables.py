"""The demo's report as three short tables; nothing that is off is ever left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

TOP = 5  # reconciled assets shown per account


def short(text: str, keep: int) -> str:
    """A long text with its middle left out, at most `keep` characters."""
    tail = min(4, keep // 3)
    return text if len(text) <= keep else f"{text[: keep - tail - 1]}…{text[-tail:]}"


def show(console: Console, report: Mapping[str, Any]) -> None:
    """The three tables."""
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


def savings(found: Sequence[Mapping[str, Any]]) -> str:
    """All syncs together against their full refreshes, in one sentence."""
    syncs = [f for f in found if f["full_refresh"]]
    parts = []
    for name in ("calls", "units"):
        ours, full = sum(f[name] for f in syncs), sum(f["full_refresh"][name] for f in syncs)
        parts.append(f"{ours:,} {name} instead of {full:,} ({saving(ours, full)} saved)")
    return f"The syncs together: {', '.join(parts)}."


def _table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


def _balances(found: Sequence[Mapping[str, Any]]) -> Table:
    numbers = ("computed", "reported", "difference")
    table = _table(
        "Balances: computed from the history, and reported by the vendor",
        "account",
        "asset",
        *numbers,
        "status",
        right=numbers,
    )
    for column, width in zip(table.columns, (18, 12, 0, 0, 10, 10), strict=True):
        column.min_width = width  # a narrow terminal shortens the amounts first
    for source, account in dict.fromkeys((r["source"], r["account"]) for r in found):
        mine = [r for r in found if (r["source"], r["account"]) == (source, account)]
        good = [r for r in mine if r["status"] == "reconciled"]
        bad = [r for r in mine if r["status"] != "reconciled"]
        for r in [*bad, *good[:TOP]]:  # most entries first
            asset = short(r["symbol"], 12) + (f" on {r['chain']}" if r["chain"] else "")
            table.add_row(
                f"{source} {short(account, 11)}",
                asset,
                *(short(r[name] or "overflow", 20) for name in numbers[:2]),
                r["difference"] or "overflow",
                r["status"],
                style="bold red" if r in bad else None,
            )
        rest = len(good) - min(TOP, len(good))
        table.add_row(
            "",
            "",
            "",
            f"{rest} more alike" if rest else "",
            "",
            f"{len(good)} of {len(mine)} reconciled",
            style="bold",
        )
        table.add_section()
    return table


def _fetched(found: Sequence[Mapping[str, Any]]) -> Table:
    numbers = ("new", "changed", "calls", "full calls", "saved", "units", "full units", "saved ")
    table = _table(
        "What was fetched, and what a full refresh would have cost",
        "run",
        "source",
        *numbers,
        right=numbers,
    )
    for f in found:
        cells = []
        for name in ("calls", "units"):
            full = (f["full_refresh"] or {}).get(name)
            paid = name == "calls" or f["source"] == "debank"
            cells += [
                f"{f[name]:,}" if paid else "",
                f"{full:,}" if full else "",
                saving(f[name], full),
            ]
        table.add_row(f["run"], f["source"], f"{f['new']:,}", f"{f['changed']:,}", *cells)
    return table


def saving(ours: int, full: int | None) -> str:
    """How much less, in percent; '' when there is nothing to compare with."""
    return f"{100 * (1 - ours / full):.1f} %" if full else ""


def _checkpoints(found: Sequence[Mapping[str, Any]]) -> Table:
    runs = list(dict.fromkeys(c["run"] for c in found))
    table = _table(
        "Checkpoints: expectations that passed, and that failed by severity", "checkpoint", *runs
    )
    cells = {(c["checkpoint"], c["run"]): c for c in found}
    for checkpoint in sorted({c["checkpoint"] for c in found}):
        mine = [cells.get((checkpoint, run)) for run in runs]
        table.add_row(
            checkpoint,
            *map(_passed, mine),
            style="bold red" if any(c and c["critical"] for c in mine) else None,
        )
    return table


def _passed(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "not run"
    failed = [f"{one[name]} {name}" for name in ("critical", "warning", "info") if one[name]]
    return ", ".join([f"{one['passed']} passed", *failed])
