"""What Airflow learns of this package whenever it starts: commands and connection types.

Found by the entry point `apache_airflow_provider`. Every Airflow process calls it, so nothing
is imported here, and what is named here is imported only when it is used.
https://airflow.apache.org/docs/apache-airflow-providers/howto/create-custom-providers.html
"""

from __future__ import annotations

from typing import Any

# Connection types, a dict each: connection-type, hook-class-name, hook-name.
CONNECTION_TYPES: list[dict[str, str]] = []


def get_provider_info() -> dict[str, Any]:
    """As airflow/provider_info.schema.json says; `package-name` is the name in pyproject.toml."""
    return {
        "package-name": "ledgerhouse",
        "name": "Ledgerhouse",
        "description": "Crypto books in a warehouse that can prove them: `airflow warehouse …`, "
                       "`airflow dags backfill`, connection types of exchanges and DeBank",
        "versions": ["0.1.0"],
        "cli": ["extract.commands.get_cli_commands"],
        "connection-types": CONNECTION_TYPES,
        "hook-class-names": [kind["hook-class-name"] for kind in CONNECTION_TYPES],
    }
