"""When and whose the books of the page are."""

from __future__ import annotations

from datetime import timedelta

from tests.helpers.books import of

START, NOW = "2024-11-01T00:00:00Z", "2024-12-20T12:00:00Z"
HOLE = ("2024-11-20T00:00:00Z", "2024-11-24T06:00:00Z")
ACCOUNTS = of("coinbase") + of("debank")
COINBASE, WHOLE, BROKEN, HEALED = (a.account for a in ACCOUNTS)
SYMBOL = '<img src=x onerror="window.pwned=1">'
RUN = "scheduled__2024-12-20T12:00:00+00:00"
SECRET = "what only the warehouse's folder holds"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
