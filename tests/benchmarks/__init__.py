"""Benchmarks: `make bench` measures what the design promises, on the machine it runs on.

Every `bench_*.py` here has `rows()`: what was measured, against which bound, and whether it
holds. `run.py` calls them in turn and writes RESULTS.md; `data.py` makes the pages and the
histories; `dlt_load.py` runs in an environment of its own (requirements.txt).
"""
