"""A vendor of a few lines, behind the client."""

from __future__ import annotations

import pytest

from tests.extract.sources.coinbase.scene import CLOCK, THEN
from tests.helpers.coinbase_stub import Vendor, served


@pytest.fixture
def vendor():
    with served(Vendor(CLOCK[THEN])) as running:
        running.wallet("btc", "BTC", "1")
        running.entry("btc", 1, "2026-02-01T10:00:00Z")
        yield running
