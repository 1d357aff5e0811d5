"""Worlds of the sandbox's own tests."""

from __future__ import annotations

import pytest

from sandbox import vendors
from sandbox.world import world

OF_TWO = ("test_mess", "test_mess_exchange")  # all others look at every vendor that there is


@pytest.fixture(scope="module", autouse=True)
def of_coinbase_and_debank(request):
    """These tests know every row of two vendors; those of the others are held to their own laws."""
    if request.module.__name__.rpartition(".")[2] not in OF_TWO:
        yield
        return
    every = vendors.all_vendors()
    with pytest.MonkeyPatch.context() as patch:
        two = {name: every[name] for name in ("coinbase", "debank")}
        patch.setattr(world, "all_vendors", lambda: two)
        yield
