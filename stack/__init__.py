"""The launcher: everything a laptop needs to run Ledgerhouse, and nothing left behind.

Read it in this order: `settings` (where things live), `airflow` (what every process sees),
`leftovers` (what was started, and how all of it is found again), `postgres`, `processes`, `init`,
`live` (the whole stack as one context manager), `rest`; then the commands: `demo` (with `follow`,
`report`, `tables`), `up`, and `__main__`.
"""
