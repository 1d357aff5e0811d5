"""The launcher: everything a laptop needs to run Ledgerhouse, and nothing left behind.

Read it in this order: `settings` (where things live), `airflow` (what every process sees), `lock`
(one stack per folder), `guard` and `processes` (what is started ends with its supervisor),
`postgres`, `live` (the whole stack as one context manager), `follow`, `commands`, `__main__`.
"""
