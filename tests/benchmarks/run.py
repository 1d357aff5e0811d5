"""Run the benchmarks and write RESULTS.md: `python -m tests.benchmarks.run [NAME …]`.

NAME is that of a bench_NAME.py; without one all run. A partial run keeps the other rows as they
were measured before. Ends with 1 when a bound does not hold or a benchmark failed.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.measure import bench_var, row

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
PACKAGES = ("duckdb", "apache-airflow", "sqlmesh", "great-expectations", "pandas", "zstandard")
HOLDS = {True: "yes", False: "**no**", None: "not measured"}


def names() -> list[str]:
    return sorted(f.stem.removeprefix("bench_") for f in HERE.glob("bench_*.py"))


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GB; "
        f"Python {platform.python_version()}, {packages}"
    )


def measure(name: str) -> list[dict]:
    """The rows of bench_NAME; one that says why where it failed."""
    began, day = time.monotonic(), f"{datetime.now(UTC):%Y-%m-%d}"
    print(f"bench_{name} …", flush=True)
    try:
        found = import_module(f"tests.benchmarks.bench_{name}").rows()
    except Exception as error:
        traceback.print_exc()
        found = [row(name, f"failed: {str(error).splitlines()[0][:200]}", "", "", None, "")]
    print(f"bench_{name} took {time.monotonic() - began:.0f} s", flush=True)
    return [
        {**each, "bench": name, "day": day, "load": round(os.getloadavg()[0], 1)} for each in found
    ]


def write(rows: list[dict], file: Path = RESULTS) -> None:
    """RESULTS.md: the table, and below it how each row was measured."""

    def cell(text) -> str:
        return str(text).replace("|", "\\|").replace("\n", " ")

    lines = [
        "# Results of `make bench`",
        "",
        f"Machine: {machine()}.",
        "",
        "Both sides of a comparison run in turn, in one run; figures are medians, with the least "
        "and the most in parentheses. CPUs may have been shared: read seconds as ratios.",
        "",
        "| what | measured | at least | aim | holds |",
        "|---|---|---|---|---|",
        *(
            f"| {cell(r['what'])} | {cell(r['ours'])} | {cell(r['bound'])} | {cell(r['aim'])} "
            f"| {HOLDS[r['holds']]} |"
            for r in rows
        ),
        "",
        "## How",
        "",
        *(
            f"- **{r['what']}** (bench_{r['bench']}, {r['day']}, load average {r['load']}): "
            f"{r.get('how') or '–'}."
            for r in rows
        ),
    ]
    file.write_text("\n".join(lines) + "\n")


def main(wanted: list[str]) -> int:
    unknown = set(wanted) - set(names())
    if unknown:
        print(
            f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(names())}",
            file=sys.stderr,
        )
        return 2
    file = bench_var() / "rows.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    for name in wanted or names():
        known[name] = measure(name)
        known = {each: known[each] for each in names() if each in known}
        file.write_text(json.dumps(known, indent=1))
        write([each for rows in known.values() for each in rows])
    failed = [r for rows in known.values() for r in rows if not r["holds"]]
    print(f"{RESULTS}: {sum(map(len, known.values()))} rows, {len(failed)} of them do not hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
