"""The client of Airflow's REST API, against a server that answers as Airflow 3.3 does."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import duckdb
import pytest

from ledgerhouse.operate.airflow.api import PAGE, AirflowApi, AirflowApiError, AirflowUnreachable
from ledgerhouse.operate.run_log.mirror import mirror
from ledgerhouse.warehouse.schema import create_all

RUN = "scheduled__2026-01-31T00:00:00+00:00"


class Server:
    """`tokens` counts the logins; only the last token is good, and `end_token` ends that too."""

    def __init__(self):
        self.tokens, self.good, self.asked, self.pools = 0, "", [], {"warehouse"}
        self.runs, self.ends_after = [], None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                status, content = server.answer(
                    self.command, self.path, body, self.headers.get("Authorization", "")
                )
                data = json.dumps(content).encode() if content is not None else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = answer

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def end_token(self) -> None:
        self.good = ""

    def answer(self, method, path, body, authorization):
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/auth/token":
            if body != {"username": "admin", "password": "right"}:
                return 401, {"detail": "Invalid credentials"}
            self.tokens += 1
            self.good = f"token-{self.tokens}"
            return 201, {"access_token": self.good}
        if parts.path == "/api/v2/monitor/health":
            status = {"status": "healthy"}
            return 200, {"metadatabase": status, "scheduler": status, "dag_processor": status}
        if not self.good or authorization != f"Bearer {self.good}":
            return 401, {"detail": "Invalid or unauthorized token"}
        self.asked.append(parts.path)
        if len(self.asked) == self.ends_after:
            self.end_token()
        return self.resource(method, parts.path.removeprefix("/api/v2"), query, body)

    def resource(self, method, path, query, body):
        if path == "/pools" and method == "POST":
            self.pools.add(body["name"])
            return 201, body
        if path.startswith("/pools/"):
            name = path.rpartition("/")[2]
            return (200, {"name": name}) if name in self.pools else (404, {"detail": "no pool"})
        if path == "/dags":
            ids = [f"dag_{n:03}" for n in range(2 * PAGE + 1)]
            offset, limit = int(query["offset"]), int(query["limit"])
            page = [{"dag_id": dag_id} for dag_id in ids[offset : offset + limit]]
            return 200, {"dags": page, "total_entries": len(ids)}
        if path.endswith("/dagRuns"):
            return 200, {"dag_runs": self.runs, "total_entries": len(self.runs)}
        if path.endswith("/taskInstances"):
            task = {
                "task_id": "load",
                "map_index": -1,
                "try_number": 1,
                "state": "success",
                "start_date": "2026-01-31T06:00:01Z",
                "end_date": "2026-01-31T06:00:02Z",
            }
            return 200, {"task_instances": [task], "total_entries": 1}
        if "/dagRuns/" in path:
            return 200, self.runs[0]
        if path == "/empty":
            return 204, None
        return 422, {"detail": [{"msg": "a number is wanted"}, {"msg": "not a word"}]}


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def api(server):
    api = AirflowApi(server.url + "/", "admin", "right")
    yield api
    api.close()


def test_it_logs_in_at_the_first_call_and_once(api, server):
    assert server.tokens == 0
    assert len(api.dags()) == 2 * PAGE + 1, "every page of the list"
    assert api.call("GET", "/empty") is None
    assert server.tokens == 1


def test_a_token_that_ends_is_renewed_and_the_call_made_again(api, server):
    api.dags()
    server.end_token()
    assert not api.ensure_pool("warehouse", "") and server.tokens == 2
    server.end_token()
    assert api.ensure_pool("api_new", "of a new connection") and "api_new" in server.pools
    assert server.tokens == 3
    assert not api.ensure_pool("api_new", "of a new connection")


@pytest.mark.parametrize("ends_after", [1, 2])
def test_the_mirror_outlives_the_token(api, server, tmp_path, ends_after):
    """A token that ends between two of its calls: the run and its task are written all the same."""
    server.runs = [
        {
            "dag_run_id": RUN,
            "run_type": "scheduled",
            "data_interval_start": "2026-01-31T00:00:00Z",
            "data_interval_end": "2026-01-31T06:00:00Z",
            "end_date": "2026-01-31T06:00:03Z",
        }
    ]
    server.ends_after = ends_after
    con = duckdb.connect()
    create_all(con)
    assert mirror(con, api, tmp_path / "attempts", ["sync"]) == 1
    assert con.execute("SELECT run_id, task_id, state FROM ops.sync_runs").fetchall() == [
        (RUN, "load", "success")
    ]
    assert server.tokens == 2


def test_what_airflow_refuses_has_its_status_and_its_words(api):
    with pytest.raises(AirflowApiError) as error:
        api.call("POST", "/backfills", {"from_date": "yesterday"})
    assert error.value.status == 422
    assert str(error.value).startswith("a number is wanted; not a word")
    assert "POST /backfills" in str(error.value)


def test_a_refused_login_ends_the_call(server):
    api = AirflowApi(server.url, "admin", "wrong", connection_id="airflow_api")
    with pytest.raises(AirflowUnreachable, match="'admin' in .*Airflow Connection 'airflow_api'"):
        api.dags()
    assert server.asked == []


def test_nothing_there_is_said_with_the_address():
    api = AirflowApi("http://127.0.0.1:9", "admin", "right")
    with pytest.raises(AirflowUnreachable, match="does not answer at http://127.0.0.1:9"):
        api.dags()
    assert api.health() == {} and not api.healthy()


def test_health_needs_no_login(api, server):
    assert api.healthy() and api.scheduler_is_alive() and server.tokens == 0


@pytest.mark.parametrize(
    "host, schema, port, url",
    [
        ("http://api-server:8080/", None, None, "http://api-server:8080"),
        ("airflow.example.com", "https", 8443, "https://airflow.example.com:8443"),
        ("127.0.0.1", None, 8080, "http://127.0.0.1:8080"),
    ],
)
def test_a_connection_is_written_as_a_url_or_in_its_fields(monkeypatch, host, schema, port, url):
    from airflow.sdk import BaseHook

    connection = SimpleNamespace(host=host, schema=schema, port=port, login="a", password="b")
    monkeypatch.setattr(BaseHook, "get_connection", lambda connection_id: connection)
    assert AirflowApi.for_task().url == url


def test_a_missing_connection_is_named(monkeypatch):
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    def missing(connection_id):
        raise AirflowNotFoundException(connection_id)

    monkeypatch.setattr(BaseHook, "get_connection", missing)
    with pytest.raises(AirflowUnreachable, match="no Airflow Connection 'airflow_api'"):
        AirflowApi.for_task()
