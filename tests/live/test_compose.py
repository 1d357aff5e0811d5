"""docker-compose.yaml: what it is, who waits for whom, and that no secret is in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from graphlib import TopologicalSorter
from importlib import resources

import pytest

from stack.settings import read_env
from tests.live.compose_file import OWN, SECRETS, services, values
from tests.live.composition import (
    EXAMPLE,
    ROOT,
    VARIABLE,
    Missing,
    filled,
    raw,
    strings,
)

SECRET_NAME = re.compile(r"PASSWORD$|SECRET|TOKEN|FERNET|_KEY$")
USER_AND_PASSWORD = re.compile(r"//[^/@\s]*:(?P<password>[^/\s]*)@")
ONLY_A_VARIABLE = re.compile(r"\$\{(\w+)(:\?[^{}]+)?\}")


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
    """Paths below `tree` where a secret is anything but one variable without a default, or one of
    the same name that may be left out (encryption)."""
    found = []
    for path, text in strings(tree):
        name = path.rsplit(".", 1)[-1]
        if SECRET_NAME.search(name) and not (
            ONLY_A_VARIABLE.fullmatch(text) or text == f"${{{name}:-}}"
        ):
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
