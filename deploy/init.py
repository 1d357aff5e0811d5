"""The one-shot service `init`, `python -m deploy.init`: what the others need before they start.

Makes SQLMesh's database, Airflow's tables and pools, the admin's password, the Connections of
`.env` (AIRFLOW_CONN_…, encrypted in Airflow's database) where there is none of that name yet, and
`airflow_api`, with which tasks ask Airflow itself. Its environment is docker-compose.yaml's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from ledgerhouse.config import AccountsFile
from stack.settings import USER, SettingsError, resolve, write_private

PREFIX = "AIRFLOW_CONN_"
API = "airflow_api"
PASSWORDS = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"


def main() -> int:
    try:
        wanted = connections_of(os.environ)
        make_database(os.environ["LEDGERHOUSE_STATE_URI"])
        from ledgerhouse.operate.airflow import init

        init.main()
        write_password(Path(os.environ[PASSWORDS]), os.environ["ADMIN_PASSWORD"])
        for line in store(wanted):
            print(line)
    except (SettingsError, ValueError) as error:  # ValueError: accounts.toml
        print(f"SettingsError: {error}", file=sys.stderr)
        return 1
    return 0


def connections_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Connection id -> its text, of `environ`'s AIRFLOW_CONN_…, with ${NAME} filled in.

    The values are those of .env as written there, quotes and all: Compose hands them over raw,
    because the sandbox's address here is not the one on the host.
    """
    from dotenv import dotenv_values

    ids = {name.upper(): name for name in AccountsFile.read().connections()}
    texts = {}
    for name in sorted(n for n in environ if n.startswith(PREFIX) and environ[n].strip()):
        raw = dotenv_values(stream=StringIO(f"{name}={environ[name]}"), interpolate=False)[name]
        texts[ids.get(name[len(PREFIX) :], name[len(PREFIX) :].lower())] = resolve(
            raw or "", environ
        )
    return texts


def make_database(uri: str) -> None:
    """Make the database that `uri` names where it is missing."""
    import psycopg2
    from psycopg2 import sql

    server, _, name = uri.rpartition("/")
    con = psycopg2.connect(f"{server}/postgres")
    con.autocommit = True
    with con.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if not cursor.fetchone():
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    con.close()


def write_password(file: Path, password: str) -> None:
    """Write the file from which Airflow's API server takes the admin's password."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_private(file, json.dumps({USER: password}))


def read(name: str, text: str):
    """The Airflow Connection that `text`, JSON or a URI, describes. Raises SettingsError."""
    from airflow.models.connection import Connection

    try:
        connection = (
            Connection.from_json(text, conn_id=name)
            if text.lstrip().startswith("{")
            else Connection(conn_id=name, uri=text)
        )
    except Exception as error:  # its text may quote the value, which holds a secret
        connection, why = None, type(error).__name__
    else:
        why = "it names no type"
    if connection is None or not connection.conn_type:
        raise SettingsError(
            f"{PREFIX}{name.upper()} in .env is neither JSON like that of "
            f".env.example nor a URI ({why}); fix it"
        ) from None
    return connection


def store(wanted: Mapping[str, str]) -> list[str]:
    """Store the connections; a line for each of what was done. Raises SettingsError for a bad one.

    One that is there already stays as it is: it may have been changed in the UI.
    """
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    api = json.dumps(
        {
            "conn_type": "http",
            "host": os.environ["AIRFLOW_API"],
            "login": USER,
            "password": os.environ["ADMIN_PASSWORD"],
        }
    )
    lines = []
    with create_session() as session:
        for name, text in {**wanted, API: api}.items():
            known = session.query(Connection).filter_by(conn_id=name).one_or_none()
            if known and name != API:
                lines.append(
                    f"connection {name}: kept as it is; to take .env's, delete it in "
                    "Airflow (Admin, Connections) and run init again"
                )
                continue
            connection = read(name, text)
            if known:
                session.delete(known)
                session.flush()
            session.add(connection)
            lines.append(f"connection {name}: stored")
        missing = [
            n
            for n in AccountsFile.read().connections()
            if not session.query(Connection).filter_by(conn_id=n).one_or_none()
        ]
    lines += [
        f"connection {n}: accounts.toml names it, and there is none; make it in Airflow "
        f"(Admin, Connections), or write {PREFIX}{n.upper()} into .env and run init again"
        for n in missing
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
