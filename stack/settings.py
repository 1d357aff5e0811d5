"""Where things live, what the .env file says, and free ports.

Variables come from `.env` (else `.env.example`); one already set in the environment wins over
the file, also inside `${NAME}` and `${NAME:-default}`.
"""

from __future__ import annotations

import base64
import secrets
import socket
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from extract.core import durable, sealed
from extract.core.quarantine import quarantine

PROJECT = Path(__file__).resolve().parents[1]
API_PORT = 8080  # of a stack that stays; another one where it is busy
HOST = "127.0.0.1"
USER = "admin"


class SettingsError(RuntimeError):
    """The settings cannot be used; the message says which one, where it is and what to write."""


def read_env(environ: Mapping[str, str], file: Path | None = None) -> dict[str, str]:
    """The variables of `file` (`.env`, else `.env.example`), resolved; `environ` wins."""
    from dotenv import dotenv_values

    files = [file] if file else [PROJECT / ".env", PROJECT / ".env.example"]
    existing = next((f for f in files if f.exists()), None)
    if existing is None:
        raise SettingsError(f"no .env and no .env.example in {PROJECT}; copy .env.example back")
    values: dict[str, str] = {}
    for name, raw in dotenv_values(existing, interpolate=False, encoding="utf-8").items():
        values[name] = environ.get(name, resolve(raw or "", {**values, **environ}))
    return values


def resolve(text: str, values: Mapping[str, str]) -> str:
    """`text` with ${NAME} and ${NAME:-default} filled in from `values`."""
    from dotenv.variables import parse_variables

    return "".join(atom.resolve(values) for atom in parse_variables(text))


def readable_by_others() -> str:
    """A warning where `.env`, which may hold keys, can be read by other users; '' otherwise."""
    file = PROJECT / ".env"
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0
    if not mode & 0o077:
        return ""
    return f".env can be read by other users of this machine (mode {mode:o}): chmod 600 .env"


def encryption_variables(values: Mapping[str, str]) -> dict[str, str]:
    """Those of `values` that say how what is kept is encrypted; a process of ours needs them too."""
    prefix = "LEDGERHOUSE_ENCRYPTION_"
    return {name: value for name, value in values.items() if name.startswith(prefix) and value}


def sandbox_port(values: Mapping[str, str]) -> int | None:
    """The sandbox's port, or None where the settings name none: then real vendors are called."""
    text = values.get("SANDBOX_PORT", "").strip()
    if text and (not text.isdigit() or not 0 < int(text) < 65536):
        raise SettingsError(f"SANDBOX_PORT is {text!r} in .env; write a port such as 8085")
    return int(text) if text else None


def free_port(preferred: int | None = None) -> int:
    """`preferred` when nobody listens there, else a port the kernel calls free (127.0.0.1)."""
    for port in (preferred or 0, 0):
        with suppress(OSError), socket.create_server((HOST, port)) as probe:
            return probe.getsockname()[1]
    raise SettingsError(f"no free port on {HOST}")


@dataclass(frozen=True)
class Settings:
    """One stack: its folder and its variables. `values` are those of the .env file, resolved."""

    var: Path
    values: Mapping[str, str]

    @property
    def airflow_home(self) -> Path:
        return self.var / "airflow"

    @property
    def metadata_ready(self) -> Path:
        """A file that exists once Airflow's tables are made in this start."""
        return self.airflow_home / "metadata.ready"

    def secret(self, name: str) -> str:
        """A random secret of this var folder, the same on every call (file readable by us only)."""
        path = self.var / "secrets.json"
        try:
            known = sealed.read(path) if path.exists() else {}
        except sealed.Damaged as error:
            quarantine(self.var, path, str(error))
            print(
                f"{path}: {error}. New secrets were made: the password of {USER} is another one, "
                "and Connections made in the UI must be entered again. To keep the old ones, stop, "
                "put the file back from a backup, and start again",
                file=sys.stderr,
            )
            known = {}
        if name not in known:
            known[name] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            write_private(path, sealed.seal(known))
        return known[name]

    @property
    def password(self) -> str:
        """The password of the Airflow user `admin`."""
        return self.secret("admin")[:16]


def write_private(path: Path, text: str) -> None:
    """Write a file nobody else may read, whole or not at all."""
    durable.write(path, text, mode=0o600)


def var_dir(environ: Mapping[str, str]) -> Path:
    """LEDGERHOUSE_VAR, else `var/` in the project; absolute, so that every process agrees."""
    return Path(environ.get("LEDGERHOUSE_VAR") or PROJECT / "var").expanduser().resolve()
