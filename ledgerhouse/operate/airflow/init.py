"""Airflow's tables and our pools, created or brought up to date, in one process:
`python -m ledgerhouse.operate.airflow.init`, for people who start an Airflow of their own.

Needs that Airflow's environment. Idempotent; 4-7 s the first time.
"""

from __future__ import annotations

from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.airflow.context import WAREHOUSE_POOL


def shared_limit(connection: str) -> str:
    """What the pool of a Connection guards."""
    return f"accounts of connection {connection} share its rate limit"


def pools() -> dict[str, str]:
    """Pool name → what it guards; every one has a single slot.

    Raises ValueError where accounts.toml cannot be read at all.
    """
    connections = AccountsFile.read().connections()
    return {WAREHOUSE_POOL: "one process at a time may open the warehouse"} | {
        f"api_{name}": shared_limit(name) for name in connections
    }


def main() -> None:
    """Do it."""
    from airflow.models.pool import Pool
    from airflow.utils import db

    db.upgradedb()
    for name, description in pools().items():
        Pool.create_or_update_pool(name, 1, description, include_deferred=False)


if __name__ == "__main__":
    main()
