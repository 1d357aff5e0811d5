"""A sync cycle and late days of this code and of an earlier revision, in turn: `run --against REV`.

REV is checked out into a temporary worktree. Each side is a process that runs its own code over a
history of the same rows, built by its own code. Packages are those of this environment, so that
code is compared with code; those that only REV asks for are installed beside them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from packaging.requirements import Requirement

from tests.benchmarks.bench_scale import LATE_DAYS
from tests.benchmarks.measure import ROOT, bench_var, interleaved, ratio, row, spread, tell

SIDE = Path(__file__).with_name("side.py")
Times = dict[str, float]  # seconds by step, and CPU


class Side:
    """A running side.py."""

    def __init__(self, name: str, code: Path, python: Path, var: Path, sizes: list[int]):
        self.name = name
        self._process = subprocess.Popen(
            [python, "-P", SIDE, *map(str, sizes)],
            cwd=code,
            env={**os.environ, "PYTHONPATH": str(code), "LEDGERHOUSE_BENCH_VAR": str(var)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def started(self) -> dict[int, int]:
        """Cycles that each history has been through, by its size; waits until they are built."""
        return {int(size): turn for size, turn in self._answer().items()}

    def cycle(self, what: str, size: int) -> Times:
        """`what` is sync or late."""
        assert self._process.stdin
        self._process.stdin.write(f"{what} {size}\n")
        return self._answer()

    def _answer(self) -> dict:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the side of {self.name} ended with {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *failed) -> None:
        assert self._process.stdin
        self._process.stdin.close()  # it ends with its input, and stops its PostgreSQL
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """The files of a revision in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ledgerhouse-against-") as folder:
        code = Path(folder) / "code"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", code, revision], check=True)
        try:
            yield code
        finally:
            subprocess.run([*git, "remove", "--force", code], check=True)


def short(revision: str) -> str:
    """The commit that a revision names, abbreviated."""
    return subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "--verify", f"{revision}^{{commit}}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def missing(requirements: str) -> list[str]:
    """The pins of a requirements.txt whose packages this environment does not have."""
    found = []
    for line in requirements.splitlines():
        text = line.split(" --hash")[0].rstrip("\\ ")
        if not text or text.lstrip() != text or text.startswith(("#", "-")):
            continue
        pin = Requirement(text)
        if pin.marker is None or pin.marker.evaluate():
            try:
                version(pin.name)
            except PackageNotFoundError:
                found.append(f"{pin.name}{pin.specifier}")
    return found


def python_for(code: Path, folder: Path) -> Path:
    """An interpreter that has the packages of this one, and those that only `code` asks for."""
    pins = code / "requirements.txt"
    wanted = missing(pins.read_text()) if pins.exists() else []
    if not wanted:
        return Path(sys.executable)
    python = folder / "bin" / "python"
    if not python.exists():
        tell(f"installing {', '.join(wanted)} into {folder}")
        venv.create(folder, with_pip=True)
        (site,) = folder.glob("lib/python*/site-packages")
        shared = sysconfig.get_path("purelib")
        (site / "shared.pth").write_text(f"import site; site.addsitedir({shared!r})\n")
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([python, *install, *wanted], check=True)
    return python


def total(times: Times) -> float:
    return sum(seconds for step, seconds in times.items() if step != "cpu")


def rows(
    revision: str,
    small: int = 1_000_000,
    large: int = 10_000_000,
    repeats: int = 5,
    late_repeats: int = 3,
) -> list[dict]:
    """The table's rows on this code against `revision`."""
    revision = short(revision)
    var = bench_var() / f"against-{revision}"
    var.mkdir(exist_ok=True)
    with ExitStack() as stack:
        code = stack.enter_context(worktree(revision))
        python = python_for(code, var / "venv")
        sides = {
            "now": Side("now", ROOT, Path(sys.executable), bench_var(), [small, large]),
            "then": Side(revision, code, python, var, [small, large]),
        }
        for side in sides.values():
            stack.enter_context(side)
        _catch_up(sides)
        cycles = _measure(sides, "sync", [small, large], repeats)
        late = _measure(sides, "late", [large], late_repeats)
    return [
        _growth_row(cycles["now", small], cycles["now", large], small, large),
        *(
            _row(what, revision, times["now", large], times["then", large])
            for what, times in (
                (f"database work of one sync cycle at {large:,}", cycles),
                (f"{LATE_DAYS} scattered late days at {large:,}", late),
            )
        ),
    ]


def _catch_up(sides: dict[str, Side]) -> None:
    """Bring the histories of both sides to as many cycles, and one further: imports, caches."""
    turns = {name: side.started() for name, side in sides.items()}
    for size in turns["now"]:
        last = max(each[size] for each in turns.values())
        for name, side in sides.items():
            for _ in range(turns[name][size], last + 1):
                side.cycle("sync", size)


def _measure(
    sides: dict[str, Side], what: str, sizes: list[int], repeats: int
) -> dict[tuple[str, int], list[Times]]:
    """Cycles of both sides at every size, in turn; by side and size."""
    found: dict[tuple[str, int], list[Times]] = {}

    def once(name: str, size: int) -> float:
        times = sides[name].cycle(what, size)
        found.setdefault((name, size), []).append(times)
        tell(f"{what} at {size:,}, {sides[name].name}: {_steps([times])}")
        return total(times)

    work = {f"{n} {size}": partial(once, n, size) for size in sizes for n in sides}
    interleaved(repeats, **work)
    return found


def _steps(times: list[Times]) -> str:
    parts = [f"{step} {median(t[step] for t in times):.2f}" for step in times[0] if step != "cpu"]
    return f"{', '.join(parts)}; CPU {median(t['cpu'] for t in times):.2f}"


def _row(what: str, revision: str, now: list[Times], then: list[Times]) -> dict:
    times_over = ratio([total(t) for t in now], [total(t) for t in then])
    cpu = ratio([t["cpu"] for t in now], [t["cpu"] for t in then])
    return row(
        f"{what} against the code of {revision}",
        f"**{times_over:.2f}×**: {_spread(now)} against {_spread(then)}; CPU {cpu:.2f}×",
        "≤ 1×",
        "",
        times_over <= 1,
        f"Each side in a process of its own, its own code over its own history of the same rows, "
        f"the same packages; {len(now)} cycles in turn; now {_steps(now)} s; then "
        f"{_steps(then)} s",
    )


def _growth_row(brief: list[Times], long: list[Times], small: int, large: int) -> dict:
    growth = ratio([total(t) for t in long], [total(t) for t in brief])
    return row(
        f"database work of one sync cycle at {large:,} against {small:,}",
        f"**{growth:.2f}×**: {_spread(long)} against {_spread(brief)}",
        "≤ 1.2×",
        "≤ 1.05×",
        growth <= 1.2,
        f"{len(long)} cycles of each size in turn; {large:,}: {_steps(long)} s; {small:,}: "
        f"{_steps(brief)} s",
    )


def _spread(times: list[Times]) -> str:
    return spread([total(t) for t in times])
