"""Hooks: open a source's API by an Airflow Connection, the only place where a secret is read."""

from __future__ import annotations

import json
from typing import Any

# The name under which Airflow gives it to providers; its own annotations do not export it.
from airflow.providers.common.compat.sdk import (
    redact as airflow_redact,  # pyright: ignore[reportPrivateImportUsage]
)
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from extract.core.errors import ExtractError, Fatal
from extract.core.redact import redact
from extract.core.source import Form, Source
from extract.fetch import error_advice
from extract.fetch.client import Client
from extract.sources import get, names
from ledgerhouse.operate.airflow.provider import hook_class

TEST_TRIES = 3  # somebody waits for the answer


class SourceHook(BaseHook):
    """Opens a source's API with the host, login, password and extra of one Connection.

    Each source has a connection type of its name and a subclass of this, `CoinbaseHook` for
    "coinbase", made when Airflow asks for it (`__getattr__` below): none is written by hand.
    """

    conn_name_attr = "connection_id"
    conn_type = hook_name = default_conn_name = ""

    def __init__(self, connection_id: str):
        super().__init__()
        self.connection_id = connection_id
        self.where, self.host = f"the Airflow Connection {connection_id!r}", "the host"

    def open(self, source: Source) -> tuple[Any, dict[str, int], tuple[str, ...]]:
        """The source's API object, its unit prices, and the secrets to keep out of texts.

        `units` in the extra, {endpoint: units}, replaces the source's assumed prices.
        Raises Fatal where there is no such Connection, or it lacks a field or is another type's.
        """
        form, title = source.form, source.form.title or source.name
        try:
            connection = self.get_connection(self.connection_id)
        except AirflowNotFoundException:
            raise Fatal(
                f"Airflow has no Connection {self.connection_id!r}, which accounts.toml names: "
                f"make it (Admin, Connections; type {title}), or set AIRFLOW_CONN_"
                f"{self.connection_id.upper()} (see .env.example), or correct the name"
            ) from None
        extra, secrets = _extra(connection), [connection.password or ""]
        secrets += _secrets(extra, form)
        for secret in secrets:
            for line in {secret, *secret.replace("\\n", "\n").splitlines()}:
                if "-----" not in line or line == secret:
                    mask_secret(line)
        if connection.conn_type != source.name and connection.conn_type in names():
            raise Fatal(
                f"{self.where} is of the type {connection.conn_type}, and {source.name} is "
                "to be opened with it: fix accounts.toml, or the Connection"
            )
        self.host = (connection.host or "").strip()
        needed = {"host": "host", "password": form.password} | (
            {"login": form.login} if form.login else {}
        )
        missing = [
            label if label == name else f"{label} ({name})"
            for name, label in needed.items()
            if not (getattr(connection, name) or "").strip()
        ]
        missing += [
            f"{label} ({name} in the extra)"
            for name, label in form.secrets.items()
            if not extra.get(name)
        ]
        if missing:
            raise Fatal(
                f"{self.where} has no {' and no '.join(missing)}; {title} needs it"
                + (f" (its host is {form.host})" if "host" in missing else "")
            )
        if not self.host.startswith(("https://", "http://")):
            raise Fatal(
                f"the host of {self.where} is {self.host!r}; write it with https://, like "
                f"{form.host or 'https://api.example.com'}"
            )
        try:
            api = source.connect(
                host=self.host,
                login=connection.login or "",
                password=connection.password,
                extra=extra,
            )
        except Fatal as error:
            raise Fatal(f"{self.where}: {error}") from None
        return api, {**source.units, **extra.get("units", {})}, tuple(filter(None, secrets))

    def advice(self, error: ExtractError, source: Source) -> str:
        """An error's text with what to do about this Connection; the Test button says the same."""
        return error_advice.advice(error, source, self.host, self.where)

    def test_connection(self) -> tuple[bool, str]:
        """The Test button: one call of the real client, at most TEST_TRIES times. (ok, words)"""
        source, secrets = get(self.conn_type), ()
        self.where = "this Connection"  # Airflow tests a copy, under a name nobody knows
        try:
            api, units, secrets = self.open(source)
            client = Client(
                source.name,
                "of this Connection",
                rates=source.rates,
                units=units,
                secrets=secrets,
                tries=TEST_TRIES,
            )
            seen = (
                source.test_connection(client, api)
                if source.test_connection
                else "was not asked: it has no test_connection()"
            )
        except ExtractError as error:
            return False, redact(self.advice(error, source), secrets)
        except Exception as error:  # the form must answer, and its text must hold no secret
            return False, redact(f"{type(error).__name__}: {error}", secrets)
        return True, redact(
            f"OK: {source.form.title or source.name} {seen}. The test made {client.calls} "
            f"call{'s' * (client.calls != 1)} and spent {client.units_spent} units",
            secrets,
        )


def _extra(connection: Any) -> dict[str, Any]:
    """The extra as an object; Fatal where it is none (the text itself is not shown)."""
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict) or not isinstance(extra.get("units", {}), dict):
        raise Fatal(
            'the extra of the Connection must be a JSON object, such as {"units": '
            '{"/v1/user/all_history_list": 20}}'
        )
    return extra


def _secrets(extra: dict[str, Any], form: Form) -> list[str]:
    """Texts of the extra that the form, or Airflow by their names, holds for secret."""
    named = {name: value for name, value in extra.items() if isinstance(value, str)}
    return [
        value
        for name, value in named.items()
        if name in form.secrets or airflow_redact({name: value}) != {name: value}
    ]


def __getattr__(name: str) -> type[SourceHook]:
    """The hook class of a source, by its name in the provider's info."""
    for source in names():
        if name == hook_class(source):
            form = get(source).form
            globals()[name] = hook = type(
                name,
                (SourceHook,),
                {
                    "conn_type": source,
                    "hook_name": form.title or source,
                    "__module__": __name__,
                    "default_conn_name": source,
                },
            )
            return hook
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
