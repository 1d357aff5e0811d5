"""Run the benchmarks and write RESULTS.md: `python -m tests.benchmarks.run [NAME …] [--against REV]`.

NAME is that of a bench_NAME.py; without one all run. bench_against runs only with --against, alone
unless others are named: it measures this code against that of a git revision. The rows of a benchmark that does not run, or
that fails, stay in RESULTS.md as they are. Ends with 1 when a bound does not hold or a benchmark
failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
import traceback
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.measure import row

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
AGAINST = "against"  # the benchmark that asks for a revision
PACKAGES = ("duckdb", "apache-airflow", "sqlmesh", "great-expectations", "pandas", "zstandard")
HOLDS = {True: "yes", False: "**no**", None: "not measured"}
CELL_END = re.compile(r"(?<!\\)\|")
MACHINE = re.compile(r"Machine(?: of (?P<benches>[\w, ]+))?: (?P<machine>.+)\.")
HOW = re.compile(
    r"- \*\*(?P<what>.+?)\*\* \(bench_(?P<bench>\w+), (?P<day>[^,]+), "
    r"load average (?P<load>[^)]+)\): (?P<how>.*)\."
)


def names() -> list[str]:
    return sorted(f.stem.removeprefix("bench_") for f in HERE.glob("bench_*.py"))


def this_machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GB; "
        f"Python {platform.python_version()}, {packages}"
    )


def measure(name: str, *arguments: str) -> list[dict] | None:
    """The rows of bench_NAME; None where it failed, which is printed."""
    began, day = time.monotonic(), f"{datetime.now(UTC):%Y-%m-%d}"
    print(f"bench_{name} …", flush=True)
    try:
        rows = import_module(f"tests.benchmarks.bench_{name}").rows(*arguments)
    except Exception:
        traceback.print_exc()
        return None
    finally:
        print(f"bench_{name} took {time.monotonic() - began:.0f} s", flush=True)
    where = {"bench": name, "day": day, "load": f"{os.getloadavg()[0]:.1f}"}
    return [{**each, **where, "machine": this_machine()} for each in rows]


def write(rows: list[dict], file: Path = RESULTS) -> None:
    """RESULTS.md: the machine, the table, and below it how each row was measured."""

    def line(text: str) -> str:
        return str(text).replace("\n", " ")

    def cell(text: str) -> str:
        return line(text).replace("|", "\\|")

    benches: dict[str, list[str]] = {}  # by machine; a partial run may be of another one
    for each in rows:
        known = benches.setdefault(each["machine"], [])
        known += [] if each["bench"] in known else [each["bench"]]
    several = len(benches) > 1
    machines = [
        f"Machine{' of ' + ', '.join(measured) if several else ''}: {machine}."
        for machine, measured in benches.items()
    ]
    lines = [
        "# Results of `make bench`",
        "",
        *machines,
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
            f"- **{line(r['what'])}** (bench_{r['bench']}, {r['day']}, load average {r['load']}): "
            f"{line(r['how']) or '–'}."
            for r in rows
        ),
    ]
    file.write_text("\n".join(lines) + "\n")


def read(file: Path = RESULTS) -> list[dict]:
    """The rows that `write` wrote; none where there is no file.

    Raises ValueError where the table and what stands below it do not have the same rows.
    """
    lines = file.read_text().splitlines() if file.exists() else []
    machines = [found for line in lines if (found := MACHINE.fullmatch(line))]
    machine = {
        bench: found["machine"]
        for found in machines
        for bench in (found["benches"] or "").split(", ")
    }
    cells = [
        [cell.strip().replace("\\|", "|") for cell in CELL_END.split(line)[1:-1]]
        for line in lines
        if line.startswith("| ")
    ][1:]
    how = [found.groupdict() for line in lines if (found := HOW.fullmatch(line))]
    if [each[0] for each in cells] != [each["what"] for each in how]:
        raise ValueError(f"{file}: a row of the table is not one of those below it")
    holds = {text: value for value, text in HOLDS.items()}
    return [
        {
            **row(what, ours, bound, aim, holds[held], below["how"].removesuffix("–")),
            "bench": below["bench"],
            "day": below["day"],
            "load": below["load"],
            "machine": machine.get(below["bench"]) or machine[""],
        }
        for (what, ours, bound, aim, held), below in zip(cells, how)
    ]


def main(arguments: list[str], file: Path = RESULTS) -> int:
    parser = argparse.ArgumentParser(prog="run")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--against", metavar="REV")
    asked = parser.parse_args(arguments)
    others = [name for name in names() if name != AGAINST]
    unknown = set(asked.names) - set(others)
    if unknown:
        print(
            f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(others)}, "
            "and --against REV",
            file=sys.stderr,
        )
        return 2
    wanted = asked.names or ([] if asked.against else others)
    rows, measured, failed = read(file), [], []
    for name in [*wanted, *([AGAINST] if asked.against else [])]:
        if (new := measure(name, *([asked.against] if name == AGAINST else []))) is None:
            failed.append(name)
            continue
        measured += new
        rows = [each for each in rows if each["bench"] != name] + new
        rows.sort(key=lambda each: names().index(each["bench"]))
        write(rows, file)
    broken = [each for each in measured if not each["holds"]]
    print(f"{file}: {len(measured)} of {len(rows)} rows measured, {len(broken)} do not hold")
    for name in failed:
        print(f"bench_{name} failed; its rows are those of before", file=sys.stderr)
    return 1 if broken or failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
