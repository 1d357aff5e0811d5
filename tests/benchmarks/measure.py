"""Timing side by side, peak memory of a fresh process, and the shape of a result."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]


def tell(text: str) -> None:
    print(f"  {text}", flush=True)


def row(what: str, ours: str, bound: str, aim: str, holds: bool | None, how: str) -> dict[str, Any]:
    """One line of the table; `holds` is None where it could not be measured."""
    return {"what": what, "ours": ours, "bound": bound, "aim": aim, "holds": holds, "how": how}


def bench_var() -> Path:
    """Where landings and warehouses are kept between runs: $LEDGERHOUSE_BENCH_VAR or var/bench."""
    var = Path(os.environ.get("LEDGERHOUSE_BENCH_VAR") or ROOT / "var" / "bench").resolve()
    var.mkdir(parents=True, exist_ok=True)
    return var


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU of all threads of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def interleaved(repeats: int, **work: Callable[[], float]) -> dict[str, list[float]]:
    """What each returns, `repeats` times in turn, so that a busy moment of the machine meets all.

    Each is called once in every round; the order is reversed in every other one.
    """
    found: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats):
        for name in list(work)[:: -1 if turn % 2 else 1]:
            found[name].append(work[name]())
    return found


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the rounds' own ratios: a slow round slows both sides of it."""
    return median(a / b for a, b in zip(above, below))


def spread(values: list[float], unit: str = "s") -> str:
    """1.20 s (1.10–1.40)"""
    return f"{median(values):.2f} {unit} ({min(values):.2f}–{max(values):.2f})"


def peak_mb(code: str, *arguments: str) -> float:
    """Peak resident memory, in MB, of a fresh interpreter that runs `code`.

    VmHWM where there is /proc: ru_maxrss of a child begins with its parent's.
    """
    done = subprocess.run(
        [sys.executable, "-c", code + _PEAK, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return float(done.stdout.split()[-1])


_PEAK = """
import pathlib, resource, sys
status = pathlib.Path("/proc/self/status")
if status.exists():
    kb = next(int(l.split()[1]) for l in status.read_text().splitlines() if l.startswith("VmHWM"))
else:
    kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kb /= 1024 if sys.platform == "darwin" else 1
print(kb / 1024)
"""
