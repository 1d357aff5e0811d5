"""One side of bench_against, a process of its own: the histories and cycles of the code it runs on.

`python -P side.py SIZE …`, with the checkout to measure as PYTHONPATH. Prints a line of JSON when
its histories are there, {size: turn}, and one for each line it reads, "sync SIZE" or "late SIZE":
seconds by step. What the code itself prints goes to stderr. Must run on any revision whose
tests/benchmarks has `bench_scale.Cycles`: it imports nothing else of this one.
"""

from __future__ import annotations

import json
import os
import sys


def main(sizes: list[int]) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from tests.benchmarks.bench_scale import Cycles
    from tests.benchmarks.history import postgres, warehouse

    with postgres() as uri:
        cycles = {size: Cycles(warehouse(size, uri)) for size in sizes}
        print(json.dumps({size: each.turn for size, each in cycles.items()}), file=answers)
        for line in sys.stdin:
            what, size = line.split()
            print(json.dumps(getattr(cycles[int(size)], what)()), file=answers)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]])
