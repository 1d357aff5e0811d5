"""PostgreSQL for root: its user reaches the cluster, and opens nobody's home."""

from __future__ import annotations

import fcntl
import os

import pytest

from stack import postgres

pytestmark = pytest.mark.live


def test_the_way_to_the_cluster_can_be_passed_through_and_not_read(tmp_path, monkeypatch):
    home = tmp_path / "home"
    cluster = home / "var" / "postgres"
    cluster.mkdir(parents=True, mode=0o700)
    for folder in (home, home / "var"):
        folder.chmod(0o700)
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 0)
    with postgres.only_passable(cluster):
        for folder in (home, home / "var"):
            folder.chmod(0o755)
    assert [f.stat().st_mode & 0o777 for f in (home, home / "var")] == [0o701, 0o701]


@pytest.mark.skipif(os.getuid() != 0, reason="only root needs a user of its own for the server")
def test_run_as_root_the_server_opens_nobodys_home(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    postgres.initialised(home / "var" / "postgres")
    assert home.stat().st_mode & 0o777 == 0o701


def test_stacks_of_root_make_the_servers_user_one_after_the_other(tmp_path, monkeypatch):
    assert os.stat(postgres.USER_LOCK.parent).st_uid == 0, "nobody else can make a file there"
    assert not os.stat(postgres.USER_LOCK.parent).st_mode & 0o002
    monkeypatch.setattr(postgres, "USER_LOCK", tmp_path / "user.lock")
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 0)
    with postgres.only_passable():
        (file,) = tmp_path.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600, "who cannot open it cannot hold it"
        with file.open("a") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with file.open("a") as other:  # it is free again
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    postgres.USER_LOCK.rename(tmp_path / "elsewhere")
    postgres.USER_LOCK.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), postgres.only_passable():
        pass
