"""docker-compose.yaml read as Compose reads it, and its services turned into processes.

`Composition` fills in ${NAME}, ${NAME:-default} and ${NAME:?message} after parsing, in values only,
as https://docs.docker.com/reference/compose-file/interpolation/ says. `Local` puts addresses and
folders of this machine in the place of the containers' names and paths; nothing else is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yaml"
EXAMPLE = ROOT / ".env.example"
VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<text>[^{}]*))?\})")


class Missing(ValueError):
    """A variable that the file calls for with :? has no value."""


def strings(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of every string value below `tree`."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from strings(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from strings(value, f"{path}[{number}]")
    elif isinstance(tree, str):
        yield path, tree


def each(tree: Any, change) -> Any:
    """`tree` with `change` applied to every string value."""
    if isinstance(tree, dict):
        return {key: each(value, change) for key, value in tree.items()}
    if isinstance(tree, list):
        return [each(value, change) for value in tree]
    return change(tree) if isinstance(tree, str) else tree


def interpolate(text: str, values: Mapping[str, str]) -> str:
    def fill(match: re.Match) -> str:
        if match["escaped"]:
            return "$"
        value = values.get(match["name"], "")
        if match["how"] == ":-":
            return value or match["text"]
        if match["how"] == ":?" and not value:
            raise Missing(f"{match['name']}: {match['text']}")
        return value

    return VARIABLE.sub(fill, text)


def raw(file: Path = FILE) -> dict[str, Any]:
    """The file as YAML, its variables not filled in."""
    return yaml.safe_load(file.read_text())


def filled(values: Mapping[str, str], file: Path = FILE) -> dict[str, Any]:
    """The file with its variables filled in. Raises Missing."""
    return each(raw(file), lambda text: interpolate(text, values))


@dataclass(frozen=True)
class Local:
    """Where the containers' addresses and folders are on this machine; ports by service."""

    services: Mapping[str, Any]  # of `filled`
    ports: Mapping[str, int]  # postgres, redis, api-server, scheduler (health), sandbox
    var: Path  # the volume `books`
    dotenv: Path  # the .env that init is given
    python: Path

    def _address(self, text: str) -> str:
        """A host and port of the file (or `--port N`) → ours."""
        inside = {
            "postgres": 5432,
            "redis": 6379,
            "api-server": 8080,
            "scheduler": 8974,
            "sandbox": 8085,
        }
        for name, port in inside.items():
            for old in (f"{name}:{port}", f"127.0.0.1:{port}"):
                text = text.replace(old, f"127.0.0.1:{self.ports[name]}")
            text = text.replace(f"--port {port}", f"--port {self.ports[name]}")
            text = str(self.ports[name]) if text == str(port) else text
        text = text.replace("--host 0.0.0.0", "--host 127.0.0.1")
        text = "127.0.0.1" if text == "0.0.0.0" else text
        return text.replace("/var/lib/ledgerhouse", str(self.var)).replace(
            "/opt/ledgerhouse", str(ROOT)
        )

    def environment(self, service: str, number: int = 1) -> dict[str, str]:
        """What the container sees: the image's ENV, env_file, environment; and no variable more."""
        definition = self.services[service]
        env = dict(re.findall(r"([A-Z]\w*)=(\S+)", _env_lines()))
        for file in definition.get("env_file", []):
            assert file == {"path": ".env", "format": "raw"}
            lines = self.dotenv.read_text().splitlines()
            env |= dict(line.split("=", 1) for line in lines if line and line[0] != "#")
        env |= {name: str(value) for name, value in definition["environment"].items()}
        env = {name: self._address(value) for name, value in env.items()}
        if "SANDBOX_HOST" in env:
            env["SANDBOX_HOST"] = "127.0.0.1"
        home = self.var.parent / "homes" / f"{service}-{number}"
        env |= {
            "PATH": f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
        }
        if "AIRFLOW_HOME" in env:
            env["AIRFLOW_HOME"] = str(home)
        home.mkdir(parents=True, exist_ok=True)
        return env

    def command(self, command: list[str]) -> list[str]:
        """A command, or a healthcheck's test, of the file; `python` and `airflow` are ours."""
        first, *rest = [self._address(word) for word in command]
        if first == "CMD":
            return self.command(rest)
        if first == "CMD-SHELL":
            return ["sh", "-c", *rest]
        return {"python": [str(self.python)], "airflow": [str(self.python), "-m", "airflow"]}.get(
            first, [first]
        ) + rest


def _env_lines() -> str:
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    return " ".join(
        line.removeprefix("ENV ") for line in text.splitlines() if line.startswith("ENV ")
    )
