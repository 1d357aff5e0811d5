"""docker-compose.yaml and its image, held to what they promise, with no Docker engine at hand.

tests/live/compose_check.py (make compose-check) starts the same services as processes, end to end.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from functools import cache
from graphlib import TopologicalSorter
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from importlib.util import find_spec

import pytest
import yaml

from deploy import health, init
from stack.settings import read_env
from tests.live.composition import (
    EXAMPLE,
    FILE,
    ROOT,
    VARIABLE,
    Missing,
    filled,
    interpolate,
    raw,
    strings,
)

SECRETS = {
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "ADMIN_PASSWORD",
    "API_SECRET_KEY",
    "JWT_SECRET",
    "FERNET_KEY",
}
SECRET_NAME = re.compile(r"PASSWORD$|SECRET|TOKEN|FERNET|_KEY$")
USER_AND_PASSWORD = re.compile(r"//[^/@\s]*:(?P<password>[^/\s]*)@")
ONLY_A_VARIABLE = re.compile(r"\$\{(\w+)(:\?[^{}]+)?\}")
OWN = ROOT / "deploy"


@cache
def services() -> dict:
    return raw()["services"]


def values(**more: str) -> dict[str, str]:
    """A .env made as .env.example tells: itself, and the secrets."""
    return read_env({}, EXAMPLE) | {name: f"{name.lower()}-of-a-test" for name in SECRETS} | more


def ends(service: dict) -> bool:
    return service.get("restart") == "no"


def test_it_is_what_the_compose_specification_calls_a_compose_file():
    import jsonschema

    schema = json.loads(
        resources.files("check_jsonschema")
        .joinpath("builtin_schemas/vendor/compose-spec.json")
        .read_text()
    )
    validator = jsonschema.validators.validator_for(schema)(schema)
    found = [
        f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}"
        for e in validator.iter_errors(raw())
    ]
    assert not found, "\n".join(found)
    assert list(validator.iter_errors(raw() | {"services": {"a": {"imaeg": "x"}}}))


def test_a_service_has_a_healthcheck_or_ends_by_itself_and_restarts_or_is_awaited():
    awaited = {
        name
        for service in services().values()
        for name, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    for name, service in services().items():
        if ends(service):
            assert name in awaited, f"{name} ends, and nobody waits for it"
            assert "healthcheck" not in service
        else:
            assert service["restart"] == "unless-stopped", name
            check = service["healthcheck"]
            assert check["test"][0] in ("CMD", "CMD-SHELL") and len(check["test"]) > 1
            assert {"interval", "timeout", "retries", "start_period"} <= set(check), name


def test_who_waits_for_whom_has_no_circle_and_can_come_true():
    graph = {name: service.get("depends_on", {}) for name, service in services().items()}
    assert set(TopologicalSorter(graph).static_order()) == set(services())
    for name, others in graph.items():
        for other, how in others.items():
            can = "service_completed_successfully" if ends(services()[other]) else "service_healthy"
            assert how == {"condition": can}, f"{name} waits for {other}"
            assert set(services()[other].get("profiles", [])) <= set(
                services()[name].get("profiles", [])
            ), f"{name} waits for the optional {other}"


def secrets_in_plain(tree: dict) -> list[str]:
    """Paths below `tree` where a secret is anything but one variable without a default."""
    found = []
    for path, text in strings(tree):
        if SECRET_NAME.search(path.rsplit(".", 1)[-1]) and not ONLY_A_VARIABLE.fullmatch(text):
            found.append(path)
        for address in USER_AND_PASSWORD.finditer(text):
            if not ONLY_A_VARIABLE.fullmatch(address["password"]):
                found.append(path)
        found += [
            path
            for match in VARIABLE.finditer(text)
            if match["name"] in SECRETS and match["how"] == ":-"
        ]
    return found


def test_no_secret_is_in_the_file_and_none_has_a_default():
    assert secrets_in_plain(raw()) == []
    environment = services()["init"]["environment"]
    for name in ("POSTGRES_PASSWORD", "AIRFLOW__CORE__FERNET_KEY", "ADMIN_PASSWORD"):
        bad = {"environment": environment | {name: "airflow"}}
        assert secrets_in_plain(bad) == [f"environment.{name}"]
    assert secrets_in_plain({"a": "redis://:guess@redis:6379"}) == ["a"]
    assert secrets_in_plain({"a": "${JWT_SECRET:-guess}"}) == ["a"]


@pytest.mark.parametrize("name", sorted(SECRETS | {"START_TS"}))
def test_without_one_of_them_nothing_starts_and_it_is_named(name):
    with pytest.raises(Missing, match=name):
        filled(values(**{name: ""}))


def test_a_secret_of_the_example_is_empty_and_every_variable_is_explained_there():
    example = read_env({}, EXAMPLE)
    used = {
        match["name"]
        for _, text in strings(raw())
        for match in VARIABLE.finditer(text)
        if match["name"]
    }
    assert used <= set(example), f"explain {used - set(example)} in .env.example"
    assert SECRETS <= used
    assert {name for name in SECRETS if example[name]} == set()
    comment = " ".join(
        line for line in EXAMPLE.read_text().splitlines() if line.startswith("#   for")
    )
    assert all(name in comment for name in SECRETS), "the one-liner makes them all"


def test_the_one_line_of_the_example_makes_the_secrets(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl here")
    line = next(
        line.removeprefix("#   ")
        for line in EXAMPLE.read_text().splitlines()
        if line.startswith("#   for")
    )
    env = tmp_path / ".env"
    shutil.copy(EXAMPLE, env)
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
    variables = read_env({}, env)
    assert filled(variables)["services"]
    assert len({variables[name] for name in SECRETS}) == len(SECRETS)
    assert all(re.fullmatch(r"[\w-]{43,}=?", variables[name]) for name in SECRETS)
    assert len(variables["JWT_SECRET"]) >= 64
    from cryptography.fernet import Fernet

    Fernet(variables["FERNET_KEY"])


def test_every_airflow_process_shares_the_secrets_and_only_init_has_the_accounts_keys():
    airflow = {
        name: service
        for name, service in filled(values())["services"].items()
        if "AIRFLOW_HOME" in service.get("environment", {})
    }
    assert set(airflow) == {"init", "api-server", "scheduler", "dag-processor", "worker"}
    shared = airflow["worker"]["environment"]
    for name, service in airflow.items():
        assert shared.items() <= service["environment"].items(), name
        # raw: Compose would fill in ${SANDBOX_HOST} itself, with the host's 127.0.0.1
        given = [{"path": ".env", "format": "raw"}] if name == "init" else None
        assert service.get("env_file") == given, name
        assert "books:/var/lib/ledgerhouse" in service["volumes"], name
    text = json.dumps(shared)
    assert "ADMIN_PASSWORD" not in text and values()["ADMIN_PASSWORD"] not in text


def test_images_are_pinned_and_ours_is_nobody_elses():
    lines = (OWN / "Dockerfile").read_text().splitlines()
    (base,) = [line.removeprefix("ARG BASE=") for line in lines if line.startswith("ARG BASE=")]
    assert [line for line in lines if line.startswith("FROM")] == ["FROM ${BASE}"]
    base, digest = base.split("@")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest), digest
    for image in [*(service["image"] for service in services().values()), base]:
        assert re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+)?(-[a-z-]+)?", image), image
    for name, service in services().items():
        ours = service["image"].startswith("ledgerhouse:")
        assert ours == ("build" in service) == (service.get("pull_policy") == "build"), name
        if ours:
            assert service["build"] == {"context": ".", "dockerfile": "deploy/Dockerfile"}
            assert service["user"] == "50000:50000" and service["cap_drop"] == ["ALL"]
    assert lines[-1].startswith("USER ") and lines[-1] != "USER root"
    assert any("--uid 50000" in line for line in lines)


def test_ports_are_open_to_this_host_only():
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert published and all(str(port).startswith("127.0.0.1:") for port in published)
    assert not any(
        service.get("network_mode") or service.get("privileged") for service in services().values()
    )


def test_volumes_are_declared_used_and_what_is_mounted_of_the_project_exists():
    named, bound = set(), set()
    for service in services().values():
        for volume in service.get("volumes", []):
            source, target, *how = volume.split(":")
            (bound if source.startswith(".") else named).add(source)
            assert target.startswith("/") and (not source.startswith(".") or how == ["ro"])
    assert named == set(raw()["volumes"])
    assert all((ROOT / path).exists() for path in bound)


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


# --- init and health --------------------------------------------------------------------------


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
