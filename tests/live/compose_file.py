"""The services of docker-compose.yaml, with the variables of .env filled in."""

from __future__ import annotations

from functools import cache

from stack.settings import read_env
from tests.live.composition import (
    EXAMPLE,
    ROOT,
    raw,
)

SECRETS = {
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "ADMIN_PASSWORD",
    "API_SECRET_KEY",
    "JWT_SECRET",
    "FERNET_KEY",
}
OWN = ROOT / "deploy"


@cache
def services() -> dict:
    return raw()["services"]


def values(**more: str) -> dict[str, str]:
    """A .env made as .env.example tells: itself, and the secrets."""
    return read_env({}, EXAMPLE) | {name: f"{name.lower()}-of-a-test" for name in SECRETS} | more
