"""A stand-in for the vendors, over real HTTP: each folder with a `VENDOR` under its own name.

    python -m sandbox --port 8099 --seed 7 --now 2026-01-31T06:00:00Z

Reading order: `vendor` (what a vendor is; `vendors` finds them) · `world` (what things are, who can
pay, what happened, and the truth about it) · `coinbase`, `debank`, … (keys, answers and paging of
each vendor) · `faults` (limits, what goes wrong on demand, and the counting of every call) ·
`control` (/_control, /_truth, /_stats) · `app`, `server`, `__main__` (how to run it).
"""
