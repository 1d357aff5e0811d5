"""Airflow's own REST API, for tasks."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseHook


class AirflowHook(BaseHook):
    """Airflow's own REST API, through the Connection `airflow_api`."""

    def __init__(self, connection_id: str = "airflow_api"):
        super().__init__()
        self.connection_id, self._session = connection_id, None

    def get(self, path: str) -> dict[str, Any]:
        """Parsed JSON of a REST path. Raises LookupError for what is not there."""
        return self._ask("GET", path)

    def ensure_pool(self, name: str, description: str) -> bool:
        """Make a pool of one slot where there is none; whether it was made."""
        path = "/api/v2/pools"
        try:
            self.get(f"{path}/{name}")
            return False
        except LookupError:
            self._ask(
                "POST",
                path,
                {"name": name, "slots": 1, "description": description, "include_deferred": False},
            )
            return True

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        import requests

        connection = self.get_connection(self.connection_id)
        host = connection.host.rstrip("/")
        if self._session is None:
            self._session = requests.Session()
            token = self._session.post(
                f"{host}/auth/token",
                timeout=30,
                json={"username": connection.login, "password": connection.password},
            )
            token.raise_for_status()
            self._session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        answer = self._session.request(method, host + path, json=body, timeout=30)
        if answer.status_code == 404:
            raise LookupError(path)
        answer.raise_for_status()
        return answer.json()
