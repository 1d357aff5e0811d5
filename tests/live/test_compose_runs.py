"""What docker-compose.yaml's services run exists and is well: commands, settings, image, init and health."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from importlib.util import find_spec

import pytest
import yaml

from deploy import health, init
from stack.settings import read_env
from tests.live.compose_file import OWN, SECRETS, services, values
from tests.live.composition import (
    EXAMPLE,
    FILE,
    ROOT,
    filled,
    interpolate,
)


def test_the_commands_of_the_services_and_their_healthchecks_exist():
    from airflow.cli.cli_parser import get_parser

    parser = get_parser()
    commands = [
        (name, service[key] if key == "command" else service["healthcheck"]["test"][1:])
        for name, service in services().items()
        for key in ("command", "healthcheck")
        if key in service
    ]
    seen = set()
    for name, command in commands:
        first, *rest = (
            command if command[0] != "sh" else re.split(r"\s+", command[2].removeprefix("exec "))
        )
        seen.add(first)
        if first == "airflow" and rest[0] == "celery" and not find_spec("celery"):
            continue  # compose_check.py runs it, where the provider is installed
        if first == "airflow":
            assert callable(parser.parse_args(rest).func), name
        elif first == "python":
            assert rest[0] == "-m" and find_spec(rest[1]), f"{name}: {rest}"
            if rest[1] == "deploy.health":
                assert rest[2] == name and rest[2] in health.CHECKS
    assert {"airflow", "python", "redis-server"} <= seen


def test_every_setting_of_airflow_is_one_it_knows():
    import airflow

    file = resources.files(airflow).joinpath("config_templates", "config.yml")
    known = {
        (section, option)
        for section, settings in yaml.safe_load(file.read_text()).items()
        for option in settings["options"]
    }
    known |= {
        ("celery", "broker_url"),
        ("celery", "result_backend"),
        ("celery", "worker_concurrency"),
        ("celery_broker_transport_options", "visibility_timeout"),
    }  # the provider's
    for name in services()["worker"]["environment"]:
        if name.startswith("AIRFLOW__"):
            _, section, option = name.lower().split("__")
            assert (section, option) in known, f"Airflow knows no {name}"


def test_the_image_has_what_the_services_run_and_the_versions_of_the_lock():
    kept = {
        line[1:]
        for line in (OWN / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert all((ROOT / path).exists() for path in kept)
    assert {
        "requirements.txt",
        "pyproject.toml",
        "README.md",  # of the package's description, with its licence
        "LICENSE",
        "NOTICE",
        "deploy",
        "dags",
        "extract",
        "ledgerhouse",
        "stack",
        "sqlmesh_project",
        "sandbox",
    } <= kept and ".env" not in kept

    def pinned(path):
        return dict(re.findall(r"^([\w.-]+)(?:\[.*\])?==([^ ;]+)", path.read_text(), re.M))

    lock, more = pinned(ROOT / "requirements.txt"), pinned(OWN / "requirements.txt")
    assert "celery" in more and "apache-airflow" in more
    # pip 23 does not take a pinned celery for celery[redis] where hashes are asked for.
    assert "\ncelery[redis]==" in (OWN / "requirements.txt").read_text()
    other = {
        name: (version, lock[name])
        for name, version in more.items()
        if lock.get(name, version) != version
    }
    assert not other, f"run `make lock`: {other}"


def test_compose_itself_reads_it_as_we_do(tmp_path):
    program = [found] if (found := shutil.which("docker-compose")) else ["docker", "compose"]
    try:
        done = subprocess.run([*program, "version", "--short"], capture_output=True, text=True)
    except OSError:
        done = None
    if (
        done is None
        or done.returncode
        or tuple(map(int, re.findall(r"\d+", done.stdout)[:2])) < (2, 30)
    ):
        pytest.skip("there is no Docker Compose 2.30 or newer here")
    shutil.copy(FILE, tmp_path)
    shutil.copy(ROOT / "accounts.toml", tmp_path)
    lines = [f"{name}={value}" for name, value in values().items() if name in SECRETS]
    (tmp_path / ".env").write_text(EXAMPLE.read_text() + "\n".join(lines) + "\n")
    printed = subprocess.run(
        [*program, "--profile", "sandbox", "config", "--format", "json"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    compose, ours = json.loads(printed)["services"], filled(values())["services"]
    assert set(compose) == set(ours)
    for name, service in ours.items():
        theirs = {k: v.replace("$$", "$") for k, v in compose[name]["environment"].items()}
        assert service["environment"].items() <= theirs.items(), name
        if "command" in service:
            assert service["command"] == [w.replace("$$", "$") for w in compose[name]["command"]], (
                name
            )
        assert set(service.get("depends_on", {})) == set(compose[name].get("depends_on", {})), name
    example = dict(
        line.split("=", 1)
        for line in EXAMPLE.read_text().splitlines()
        if line.startswith("AIRFLOW_CONN_")
    )
    theirs = {k: v.replace("$$", "$") for k, v in compose["init"]["environment"].items()}
    assert example.items() <= theirs.items(), "init gets the connections as they are written"


def test_dollars_defaults_and_quotes():
    assert interpolate("$$A ${A} ${B:-b} ${C:-}|${A:?why}", {"A": "a", "B": ""}) == "$A a b |a"


# --- init and health ------------------------------------------------------------------------------


def test_init_takes_the_connections_as_env_has_them_with_the_sandbox_where_it_is_here():
    raw_lines = dict(
        line.split("=", 1) for line in EXAMPLE.read_text().splitlines() if line and line[0] != "#"
    )
    here = {
        name: services()["init"]["environment"][name] for name in ("SANDBOX_HOST", "SANDBOX_PORT")
    }
    found = init.connections_of(
        raw_lines | here | {"AIRFLOW_CONN_KRAKEN": "'kraken://a:b@host'", "AIRFLOW_CONN_EMPTY": " "}
    )
    assert set(found) == {"coinbase_main", "debank", "kraken"}
    assert found["kraken"] == "kraken://a:b@host"
    assert json.loads(found["debank"])["host"] == "http://sandbox:8085/debank"
    on_the_host = json.loads(read_env({}, EXAMPLE)["AIRFLOW_CONN_COINBASE_MAIN"])
    assert json.loads(found["coinbase_main"]) == on_the_host | {
        "host": "http://sandbox:8085/coinbase"
    }


@pytest.mark.parametrize(
    "text",
    [
        '{"conn_type": "debank", "password": "s3cret"',
        '"s3cret"',
        "s3cret",
        '{"host": "http://x", "password": "s3cret"}',
    ],
)
def test_a_connection_that_cannot_be_read_is_named_and_its_secret_is_not(text):
    good = json.dumps({"conn_type": "debank", "host": "http://x", "password": "s3cret"})
    assert init.read("debank", good).password == "s3cret"
    with pytest.raises(init.SettingsError, match="AIRFLOW_CONN_DEBANK.*fix") as error:
        init.read("debank", text)
    assert "s3cret" not in str(error.value) and error.value.__cause__ is None
    assert error.value.__suppress_context__ and error.value.__context__ is None


class Answer(BaseHTTPRequestHandler):
    status, body = 200, b"{}"

    def do_GET(self):
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("service", ["api-server", "scheduler", "dag-processor", "sandbox"])
def test_a_healthcheck_passes_when_its_service_is_well_and_only_then(service, capsys):
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    report = {name: {"status": "healthy"} for name in ("metadatabase", "dag_processor")}
    try:
        Answer.status, Answer.body = 200, json.dumps(report).encode()
        assert health.main([service, url]) == 0
        Answer.status = 503
        assert health.main([service, url]) == 1 and "503" in capsys.readouterr().err
        if service in ("api-server", "dag-processor"):
            report = {name: {"status": "unhealthy"} for name in report}
            Answer.status, Answer.body = 200, json.dumps(report).encode()
            assert health.main([service, url]) == 1 and "unhealthy" in capsys.readouterr().err
    finally:
        server.shutdown()
        server.server_close()
    assert health.main([service, url]) == 1, "nobody answers"
