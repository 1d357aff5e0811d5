"""Data Docs: the results of the checkpoints as HTML pages that need no network and no script.

`<docs_dir>/index.html` lists the runs; `runs/<run>/<table>.html` is one checkpoint of a run with
every expectation in words, `runs/<run>/run.json` the run in numbers. The templates are ours, in
`templates/`; each page carries its style, and everything that is quoted is escaped: anybody may
mint a token that is called <script>.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.core import durable, sealed
from extract.core.interval import UTC, Interval, iso
from extract.core.quarantine import quarantine

if TYPE_CHECKING:
    from jinja2 import Environment

    from ledgerhouse.check.checkpoints import CheckResult

SEVERITIES: tuple[str, ...] = ("critical", "warning", "info")
RUN = {"run_id", "start", "end", "checked_at", "tables", "failed"}  # what its numbers are
MOST_SPANS = 20  # named on a page


def write(
    docs_dir: Path,
    run_id: str,
    interval: Interval,
    results: Sequence[CheckResult],
    *,
    keep: int,
    spans: Sequence[Interval] = (),
) -> Path:
    """Write the pages of a run, remove all but the newest `keep` runs, rewrite the index.

    Returns the run's folder. A run written again replaces itself; readers meet whole runs only.
    `spans` are the parts of the interval that were checked, where that was not all of it.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: the run just made is kept, so give 1 or more")
    runs = docs_dir / "runs"
    folder = runs / folder_of(run_id)
    draft = runs / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    by_table: dict[str, list[CheckResult]] = {}
    for result in results:
        by_table.setdefault(result.checkpoint, []).append(result)
    run = {
        "run_id": run_id,
        "start": iso(interval.start),
        "end": iso(interval.end),
        "checked_at": iso(datetime.now(UTC)),
        "tables": {table: _tally(of_table) for table, of_table in by_table.items()},
        "failed": [str(r) for r in results if not r.success],
    }
    (draft / "run.json").write_text(sealed.seal(run))
    parts = [(iso(span.start), iso(span.end)) for span in spans]
    for table, of_table in by_table.items():
        failed = [r for r in of_table if not r.success]
        failed.sort(key=lambda result: SEVERITIES.index(result.severity))
        passed = [r for r in of_table if r.success]
        _render(
            draft / f"{table}.html",
            "checkpoint.html",
            {"run": run, "table": table, "failed": failed, "passed": passed, "spans": parts},
        )
    shutil.rmtree(folder, ignore_errors=True)
    durable.place(draft, folder)
    _write_index(docs_dir, keep)
    return folder


def folder_of(run_id: str) -> str:
    """A folder name for any run id: readable, and different for different ids."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", run_id).strip(".")[:80]
    return f"{plain}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def _write_index(docs_dir: Path, keep: int) -> None:
    """List the newest `keep` runs and remove the others; runs of an older version count too. A run
    whose numbers cannot be read goes to quarantine, with its pages."""
    runs = []
    for path in sorted((docs_dir / "runs").glob("*/run.json")):
        if path.parent.name.startswith("."):
            continue
        try:
            run = sealed.read(path)
            if lacking := RUN - run.keys():
                raise sealed.Damaged(f"it has no {', '.join(sorted(lacking))}")
        except sealed.Damaged as error:
            quarantine(docs_dir, path.parent, f"its run.json: {error}")
        else:
            runs.append((path.parent.name, run))
    runs.sort(key=lambda run: (run[1]["checked_at"], run[0]), reverse=True)
    for folder, _ in runs[keep:]:
        shutil.rmtree(docs_dir / "runs" / folder)
    draft = docs_dir / f".index.{os.getpid()}.html"
    _render(draft, "index.html", {"runs": runs[:keep]})
    durable.place(draft, docs_dir / "index.html")


def _render(path: Path, template: str, values: Mapping[str, Any]) -> None:
    path.write_text(_templates().get_template(template).render(values), encoding="utf-8")


@cache
def _templates() -> Environment:
    """The folder `templates/`; whatever a template prints is escaped, and a missing name raises."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("ledgerhouse.check"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"moment": _moment, "total": _total, "worst": _worst}
    templates.globals["MOST_SPANS"] = MOST_SPANS
    return templates


def _tally(results: Sequence[CheckResult]) -> dict[str, int]:
    """How many expectations passed, and how many failed by severity."""
    counts = dict.fromkeys(("passed", *SEVERITIES), 0)
    for result in results:
        counts["passed" if result.success else result.severity] += 1
    return counts


def _total(tables: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The tallies of all tables as one."""
    names = ("passed", *SEVERITIES)
    return {name: sum(counts[name] for counts in tables.values()) for name in names}


def _worst(counts: Mapping[str, int]) -> str:
    """The highest severity that failed, or "passed"."""
    return next((severity for severity in SEVERITIES if counts[severity]), "passed")


def _moment(text: str) -> str:
    """An ISO time in UTC as people read it, without its seconds where they are zero."""
    return text[:19].replace("T", " ").removesuffix(":00")
