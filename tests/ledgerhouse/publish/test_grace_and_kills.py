"""What goes, and when: files that readers may still hold, and a publish that is killed."""

from __future__ import annotations

import os
import random
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from extract.core import durable
from ledgerhouse.publish import parquet_files
from ledgerhouse.publish import publish as publishing
from ledgerhouse.publish.books import BOOKS, open_books
from ledgerhouse.publish.publish import GRACE, publish
from tests.ledgerhouse.publish.scene import (
    DAY,
    NOW,
    Killed,
    contents,
    published,
    stamps,
    sync,
)


# ---- what goes, and when
def test_dropped_files_stay_for_the_grace_of_their_readers_and_no_longer(con, tmp_path):
    day, started = date(2031, 1, 1), NOW
    publish(con, tmp_path, [], now=started)
    with duckdb.connect(str(tmp_path / BOOKS), read_only=True) as reader:
        was = contents(reader)
        days = sync(con, 1, {day: 1}, date(2031, 4, 28))
        publish(con, tmp_path, days, now=started + 30 * DAY)  # first drops; however old they are
        publish(con, tmp_path, days, now=started + 30 * DAY + GRACE - timedelta(seconds=1))
        assert contents(reader) == was, "a reader keeps the generation it opened"
        publish(con, tmp_path, days, now=started + 30 * DAY + GRACE)
    names = {
        int(p.name[1:].split(".")[0]) for p in (tmp_path / "tx_unified" / "month=2031-01").iterdir()
    }
    assert names == {2, 3, 4}, "1 was dropped an hour ago, 2 a second ago, 3 now"
    assert published(tmp_path) == contents(con)


def test_a_vanished_months_folder_goes_with_its_last_file(con, tmp_path):
    publish(con, tmp_path, [], now=NOW)
    days = sync(con, 1, {date(2031, 1, day): 0 for day in (1, 15, 28)}, date(2031, 4, 28))
    publish(con, tmp_path, days, now=NOW)
    publish(con, tmp_path, [], now=NOW + GRACE)
    assert not (tmp_path / "tx_unified" / "month=2031-01").exists()
    assert (tmp_path / "tx_unified" / "month=2031-02").exists()


def test_what_gets_its_name_is_on_the_disk_before(con, tmp_path, monkeypatch):
    """No kill of a process shows a missing fsync; only the order of the calls does."""
    synced, named = set(), []

    real = durable.sync
    monkeypatch.setattr(durable, "sync", lambda path: (real(path), synced.add(str(path))))

    def checked(name):
        real = getattr(os, name)

        def rename(source, target):
            named.append(str(source) in synced)
            real(source, target)

        monkeypatch.setattr(os, name, rename)

    for name in ("rename", "replace"):
        checked(name)
    done = publish(con, tmp_path, [])
    assert named == [True] * (len(done.files) + 3), "each file, the books and their digest"


@pytest.mark.slow
def test_killed_at_any_step_and_run_again_equals_never_killed(con, only, tmp_path, monkeypatch):
    """Step k of the k-th publish raises, until one has fewer steps than that."""
    only("curated.tx_unified", "curated.daily_balances", "ops.coverage")
    steps = [
        (os, "rename"),
        (os, "replace"),
        (Path, "unlink"),
        (Path, "rmdir"),
        (publishing, "sync"),
        (durable, "sync"),
        (publishing, "build"),
        (parquet_files, "place"),
        (parquet_files, "_write"),
        (parquet_files, "_write_all"),
    ]
    real = {(owner, name): getattr(owner, name) for owner, name in steps}
    left = {"steps": 0}

    def dying(call, after):
        def step(*args, **kwargs):
            left["steps"] -= 1
            if left["steps"] == 0:
                if after:
                    call(*args, **kwargs)
                raise Killed
            return call(*args, **kwargs)

        return step

    kinds, now, rng = set(), NOW, random.Random(5)
    publish(con, tmp_path, [], run_id="000000", now=now)
    for run in range(1, 500):
        before, now = contents(con), now + GRACE
        (tmp_path / f".{BOOKS}.part").write_bytes(b"half")
        days = sync(
            con,
            run,
            {date(2031, rng.choice((3, 4)), 15): rng.randint(0, 2)},
            date(2031, 4, 28),
            rng,
        )
        left["steps"] = run
        with monkeypatch.context() as patched:
            for owner, name in steps:
                patched.setattr(owner, name, dying(real[owner, name], after=run % 2))
            try:
                publish(con, tmp_path, days, run_id=f"{run:06d}", now=now)
                killed = False
            except Killed:
                killed = True
        books_now, wanted = published(tmp_path), contents(con)
        assert books_now in (before, wanted), "neither before nor after"
        kinds.add(books_now == before)
        publish(con, tmp_path, days, run_id=f"{run:06d}", now=now)
        assert published(tmp_path) == wanted
        if not killed:
            break
    assert not killed and kinds == {True, False}, "kills before and after the switch"
    for later in (1, 2):
        publish(con, tmp_path, [], now=now + later * GRACE)
    with open_books(tmp_path) as books:
        listed = {
            p
            for (p,) in books.execute(
                "SELECT path FROM published_files UNION ALL SELECT path FROM retired_files"
            ).fetchall()
        }
        live = {p for (p,) in books.execute("SELECT path FROM published_files").fetchall()}
    assert stamps(tmp_path).keys() == listed and len(listed) <= len(live) + 2
    assert list(tmp_path.rglob(".*")) == [], "nothing half-written is left"
