"""Killed anywhere and run again equals never killed: a few lives of torture.py, hundreds of kills.

`make torture N=100` lives more of them.
"""

from __future__ import annotations

from collections import Counter

import pytest

from torture import live

KILLED: Counter = Counter()


@pytest.mark.parametrize("seed", range(100, 106))
def test_a_life_with_kills_ends_equal_to_the_truth(seed):
    life = live(seed, runs=8, kill=0.95)
    assert life.kills["fetch"] > 5 and life.kills["load"]
    KILLED.update(life.kills)


def test_killed_between_models_checks_and_books_it_ends_equal_all_the_same():
    life = live(200, runs=4, kill=0.8, curated=True)
    assert {"transform", "check", "publish"} & set(life.kills)
    KILLED.update(life.kills)
