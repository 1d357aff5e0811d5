"""Airflow Connections, opened: the only place where a secret is read."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseHook

from extract.client import Fatal
from extract.source import Source


class SourceHook(BaseHook):
    """Opens a source's API with the host, login, password and extra of one Connection."""

    def __init__(self, connection_id: str):
        super().__init__()
        self.connection_id = connection_id

    def open(self, source: Source) -> tuple[Any, dict[str, int], tuple[str, ...]]:
        """The source's API object, its unit prices, and the secrets to keep out of texts.

        `units` in the extra, {endpoint: units}, replaces the source's assumed prices.
        Raises Fatal where the Connection has no host or no password.
        """
        connection = self.get_connection(self.connection_id)
        for field in ("host", "password"):
            if not getattr(connection, field):
                raise Fatal(f"the Airflow Connection {self.connection_id!r} has no {field}; "
                            f"{source.name} needs one (see .env.example)")
        extra = connection.extra_dejson
        api = source.connect(host=connection.host, login=connection.login or "",
                             password=connection.password, extra=extra)
        return api, {**source.units, **extra.get("units", {})}, (connection.password,)


class AirflowHook(BaseHook):
    """Airflow's own REST API, through the Connection `airflow_api`."""

    def __init__(self, connection_id: str = "airflow_api"):
        super().__init__()
        self.connection_id, self._session = connection_id, None

    def get(self, path: str) -> dict[str, Any]:
        """Parsed JSON of a REST path. Raises LookupError for what is not there."""
        import requests

        connection = self.get_connection(self.connection_id)
        host = connection.host.rstrip("/")
        if self._session is None:
            self._session = requests.Session()
            token = self._session.post(
                f"{host}/auth/token", timeout=30,
                json={"username": connection.login, "password": connection.password})
            token.raise_for_status()
            self._session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        answer = self._session.get(host + path, timeout=30)
        if answer.status_code == 404:
            raise LookupError(path)
        answer.raise_for_status()
        return answer.json()
