"""Which batches the order of loads lists: right, or none where a line is not as it was written."""

from datetime import UTC, datetime

import pytest

from extract.fetch import landing
from extract.fetch.noted import batch_ids


@pytest.fixture
def root(tmp_path):
    for n in (1, 2, 3):
        load = landing.Load(n, f"{n:032x}", datetime(2026, 1, n, tzinfo=UTC), ("a", "b"))
        landing.note_load(tmp_path, load)
    return tmp_path


def test_the_ids_are_those_that_reading_the_lines_gives(root):
    assert batch_ids(root) == {load.batch_id for load in landing.loads(root)} and batch_ids(root)
    assert batch_ids(root / "none") == set()


@pytest.mark.parametrize("harm", ["a bit", "no sum", "cut", "foreign"])
def test_nothing_is_told_of_a_list_with_a_line_that_is_not_as_it_was_written(root, harm):
    file = root / landing.LOADS
    data = file.read_bytes()
    file.write_bytes(
        {
            "a bit": data.replace(b'"sequence":2', b'"sequence":3'),
            "no sum": data + b'{"batch_id":"0123","sequence":4}\n',
            "cut": data[:-20],
            "foreign": data + b"PK\x03\x04\n",
        }[harm]
    )
    assert batch_ids(root) is None
