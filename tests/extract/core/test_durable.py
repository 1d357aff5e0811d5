"""What is placed is on the disk before it has its name, and its name is before the call returns."""

import os
from pathlib import Path

import pytest

from extract.core import durable


@pytest.fixture
def steps(monkeypatch):
    """The names of what is forced to the disk and renamed, in order."""
    done, handles = [], {}
    real_open, real_sync, real_replace = os.open, os.fsync, os.replace

    def opened(path, *args):
        handle = real_open(path, *args)
        handles[handle] = Path(path).name
        return handle

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", lambda fd: (real_sync(fd), done.append(handles[fd])))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (real_replace(a, b), done.append(f"-> {Path(b).name}"))
    )
    return done


def test_a_file_is_forced_to_the_disk_before_its_rename_and_its_folder_after(tmp_path, steps):
    (tmp_path / ".new").write_text("x")
    (tmp_path / "there").mkdir()
    durable.place(tmp_path / ".new", tmp_path / "there" / "file")
    assert steps[:2] == [".new", "-> file"]
    assert sorted(steps[2:]) == sorted(["there", tmp_path.name])


def test_a_folder_is_forced_to_the_disk_with_all_that_is_in_it(tmp_path, steps):
    draft = tmp_path / "draft"
    (draft / "deep").mkdir(parents=True)
    (draft / "a").write_text("a")
    (draft / "deep" / "b").write_text("b")
    durable.place(draft, tmp_path / "whole")
    assert set(steps[:4]) == {"a", "b", "deep", "draft"}
    assert steps[4:] == ["-> whole", tmp_path.name]


def test_a_new_folder_is_on_the_disk_with_each_above_it(tmp_path, steps):
    durable.folder(tmp_path / "one" / "two")
    assert set(steps) == {"one", tmp_path.name}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = durable.write(tmp_path / "file", "old", mode=0o600)
    assert file.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        durable.write(file, "new")
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("file", "old")]


def test_no_file_is_renamed_into_place_but_by_this_module():
    """A rename of one's own would be without the fsync: see durable.place."""
    root = Path(__file__).parents[3]
    own = [
        f"{file.relative_to(root)}: {line.strip()}"
        for package in ("extract", "ledgerhouse", "stack", "deploy", "dags")
        for file in (root / package).rglob("*.py")
        for line in file.read_text().splitlines()
        if ("os.replace(" in line or "os.rename(" in line or ".rename(" in line)
        and file.name not in ("durable.py", "guard.py")  # the guard turns over logs
    ]
    assert own == []


def test_folders_and_small_files_are_their_owners_alone(tmp_path):
    """Whatever the umask: what lies below the first of them nobody else can reach."""
    before = os.umask(0)
    try:
        durable.folder(tmp_path / "var" / "landing" / "inbox")
        durable.write(tmp_path / "var" / "landing" / "run.json", "{}")
    finally:
        os.umask(before)
    made = [*(tmp_path / "var").rglob("*"), tmp_path / "var"]
    assert {oct(path.stat().st_mode & 0o777) for path in made if path.is_dir()} == {"0o700"}
    assert {oct(path.stat().st_mode & 0o777) for path in made if path.is_file()} == {"0o600"}
