"""A small world behind the sandbox."""

import pytest

from sandbox.world.world import World
from tests.ledgerhouse.plan.budget.scene import START


@pytest.fixture(scope="module")
def small():
    return World(5, START, 0.5, 0, mess=False)
