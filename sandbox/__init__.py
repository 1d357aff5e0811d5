"""A stand-in for the vendors: Coinbase under /coinbase, DeBank under /debank, over real HTTP.

    python -m sandbox --port 8099 --seed 7 --now 2026-01-31T06:00:00Z

Reading order: `tokens` and `exchange_records`, `chain_records` (what things are) ·
`purse` (who can pay) · `exchange_history`, `chain_kinds`, `chain_history` (what happened) ·
`world` (the history as of a moment, and the truth about it) · `coinbase_wire`, `debank_wire`
(how the vendors spell it) · `coinbase_auth`, `coinbase_api`, `debank_api` (how they serve it) ·
`answers` (how they say no), `limits`, `faults`, `spoil` (what goes wrong on demand), `traffic`
(what every call passes) · `control` (/_control, /_truth, /_stats) ·
`app`, `server`, `__main__` (how to run it).
"""
