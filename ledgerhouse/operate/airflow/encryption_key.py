"""The encryption key under Airflow: from the environment, or from the Connection that it names.

    resolve(text) -> text       given the variable's text, or None; masked in logs from then on

A Connection's password is the key. It is asked for once a process, and kept in that process's
environment, where SQLMesh's settings look for it.
"""

from __future__ import annotations

import os

from extract.fetch.encryption import CONNECTION, KEY, OLD_KEYS, EncryptionError

_masked: set[str] = set()


def resolve(text: str | None) -> str | None:
    """The key's text. Raises EncryptionError where the Connection is missing, or has no password."""
    if not text and (name := os.environ.get(CONNECTION)):
        text = _of_connection(name)
        os.environ[KEY] = text
    for secret in (text, *os.environ.get(OLD_KEYS, "").replace(",", " ").split()):
        if secret and secret not in _masked:
            from airflow.sdk.log import mask_secret

            mask_secret(secret)
            _masked.add(secret)
    return text


def _of_connection(name: str) -> str:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        password = (BaseHook.get_connection(name).password or "").strip()
    except AirflowNotFoundException:
        raise EncryptionError(
            f"{CONNECTION} names the Airflow Connection {name!r}, and this process finds none: set "
            f"AIRFLOW_CONN_{name.upper()} or a secrets backend (a command of Airflow's command line "
            f"does not see Connections that were made in the UI), or put the key into {KEY}. "
            "Nothing was changed"
        ) from None
    if not password:
        raise EncryptionError(
            f"the Airflow Connection {name!r}, which {CONNECTION} names, has no password: the key "
            "goes there. Nothing was changed"
        )
    return password
