"""Airflow's tables and pools, created or brought up to date: `python -m stack.init`, one process.

Needs the environment of `stack.airflow.environment`. Idempotent; 4-7 s the first time.
"""

from __future__ import annotations

from ledgerhouse.operate.airflow.context import WAREHOUSE_POOL
from stack.settings import connections


def pools() -> dict[str, str]:
    """Pool name -> what it guards; every one has a single slot."""
    return {
        WAREHOUSE_POOL: "one process at a time may open the warehouse",
        **{
            f"api_{name}": f"accounts of connection {name} share its rate limit"
            for name in connections()
        },
    }


def main() -> None:
    from airflow.models.pool import Pool
    from airflow.utils import db

    db.upgradedb()
    for name, description in pools().items():
        Pool.create_or_update_pool(name, 1, description, include_deferred=False)


if __name__ == "__main__":
    main()
