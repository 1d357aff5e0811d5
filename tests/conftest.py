"""Fixtures shared by the suites: an empty warehouse, a landing, and the captures if present."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from extract.core.interval import Interval, utc
from extract.core.source import Covered, Fetched, Job, Page
from extract.fetch import landing
from extract.sources import all_sources
from ledgerhouse.load.loader import load
from ledgerhouse.warehouse import schema
from tests.helpers import books
from tests.helpers.once import made_once

ROOT = Path(__file__).parents[1]

# A test must never find the developer's own warehouse, Airflow or accounts.
for variable in [v for v in os.environ if v.startswith(("LEDGERHOUSE_", "AIRFLOW_"))]:
    del os.environ[variable]
_settings = TemporaryDirectory(prefix="ledgerhouse-tests-")
(Path(_settings.name) / "accounts.toml").write_text(books.ACCOUNTS_TOML)
os.environ["LEDGERHOUSE_ACCOUNTS"] = str(Path(_settings.name) / "accounts.toml")


def pytest_unconfigure() -> None:
    _settings.cleanup()


# What is young is looked through once it is 2,000,000 objects, not 700: a transform makes 400,000
# syntax nodes, in cycles. A worker grows by 150 MB.
gc.set_threshold(2_000_000, 20, 20)


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long first, so that no worker is left alone with one at the end."""
    marks: dict[Path, set[str]] = {}
    for item in items:
        marks.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    rank = {path: ("live" not in names, "slow" not in names) for path, names in marks.items()}
    items.sort(key=lambda item: rank[item.path])  # stable: a file stays together


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    """What a test printed or logged may hold half a surrogate pair; sent as it is by a worker of
    xdist it ends the whole run."""
    return _encodable((yield))


def _encodable(data):
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode()
    if isinstance(data, dict):
        return {_encodable(key): _encodable(value) for key, value in data.items()}
    return [*map(_encodable, data)] if isinstance(data, (list, tuple)) else data


@pytest.fixture
def con():
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
    schema.create_all(connection)
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def planned(tmp_path_factory) -> Path:
    """A folder with a warehouse whose prod environment is empty: making one takes five seconds."""
    from ledgerhouse.transform.sqlmesh_context import FILE, plan_production
    from ledgerhouse.transform.touched_days import transform

    def make(var: Path) -> None:
        assert transform(var / FILE, owner="test").planned  # at first use, even without marks
        assert plan_production(var / FILE) is False

    return made_once(tmp_path_factory, "planned", make)[0]


@pytest.fixture(scope="session")
def lived_in(planned, tmp_path_factory) -> Path:
    """The same with a first batch transformed."""
    from ledgerhouse.transform.sqlmesh_context import FILE
    from ledgerhouse.transform.touched_days import clear_touched_days, transform
    from tests.helpers.recomputed import load_batch, opened

    def make(var: Path) -> None:
        shutil.copytree(planned, var, dirs_exist_ok=True)
        with opened(var / FILE) as con:
            load_batch(con, random.Random(7), datetime(2077, 2, 20), 0)
        done = transform(var / FILE, owner="test")
        with opened(var / FILE) as con:
            clear_touched_days(con, done.marks)

    return made_once(tmp_path_factory, "lived_in", make)[0]


@pytest.fixture
def lander(tmp_path):
    """lander(con, source, account, pages, …) lands pages as one fetch and loads them."""
    sources = all_sources()

    def land(con, source, account, pages, *, start="2015-01-01", end="2035-01-01", covered=()):
        job = Job(source, account, source, Interval(start, end), utc(start))
        fetched = Fetched(list(pages), [Covered(d, job.interval, "test") for d in covered])
        landing.write(tmp_path / "landing", job, fetched, {"run_id": "test"})
        return load(con, tmp_path / "landing", sources)

    return land


def page(endpoint: str, data, *, at="2026-01-01T00:00:00Z", as_of=None, **params) -> Page:
    """A page whose body is `data` (JSON text, or anything json can write)."""
    body = data if isinstance(data, str) else json.dumps(data)
    return Page(endpoint, params, body, utc(at), utc(as_of) if as_of else None)


def capture(name: str) -> tuple[dict, str]:
    """A capture of a real API (the parsed file, and the answer as text with its own numbers).

    Skips where the captures are not there: they belong to third parties and are not part of
    the project.
    """
    file = ROOT.parent / "shared" / "wire" / name
    if not file.exists():
        pytest.skip(f"the capture {name} is third-party data and not part of the project")
    text = file.read_text()
    start = text.index('"httpResponse":') + len('"httpResponse":')
    _, end = json.JSONDecoder().raw_decode(text, start + 1)
    return json.loads(text), text[start:end]
