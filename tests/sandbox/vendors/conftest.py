"""A small sandbox and its clients."""

from __future__ import annotations

import pytest

from sandbox.server import serve
from tests.sandbox.vendors.scene import NOW, SMALL, exchange


@pytest.fixture(scope="module")
def small():
    with serve(seed=11, scale=SMALL, now=NOW) as url:
        url.app.lift_limits()
        yield url


@pytest.fixture(scope="module")
def client(small):
    client = exchange(small.coinbase)
    client.load_markets()
    return client
