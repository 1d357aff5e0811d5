"""Airflow provider: the commands and connection types that this package adds to Airflow.

It is found by the entry point `apache_airflow_provider`. Every Airflow process calls it, so nothing
is imported here but the sources' own files (20 ms), and what is named is imported when it is used.
https://airflow.apache.org/docs/apache-airflow-providers/howto/create-custom-providers.html
"""

from __future__ import annotations

import logging
from typing import Any

# Fields of a Connection that no API needs; the scheme is part of the host.
UNUSED = ["port", "schema"]


def connection_types() -> list[dict[str, Any]]:
    """A connection type for every file in extract/sources/, with its form; see `Form`.

    A file that cannot be imported is left out, with a warning: Airflow must start all the same.
    """
    from extract.sources import get, names

    types = []
    for name in names():
        try:
            form = get(name).form
        except Exception as error:
            logging.getLogger(__name__).warning(
                "no connection type %r: extract/sources/%s.py cannot be imported: %s: %s",
                name,
                name,
                type(error).__name__,
                error,
            )
            continue
        labels = {"password": form.password} | ({"login": form.login} if form.login else {})
        types.append(
            {
                "connection-type": name,
                "hook-class-name": f"ledgerhouse.operate.airflow.hooks.{hook_class(name)}",
                "hook-name": form.title or name,
                "ui-field-behaviour": {
                    "hidden-fields": UNUSED + ([] if form.login else ["login"]),
                    "relabeling": {
                        field: label[:1].upper() + label[1:] for field, label in labels.items()
                    },
                    "placeholders": {"host": form.host or "https://…", **form.hints},
                },
                "conn-fields": {
                    field: {
                        "label": label,
                        "schema": {"type": ["string", "null"], "format": "password"},
                    }
                    for field, label in form.secrets.items()
                },
            }
        )
    return types


def hook_class(source: str) -> str:
    """Name of the hook class of a source, CoinbaseHook for coinbase; hooks.py makes it when asked."""
    return "".join(part.capitalize() for part in source.split("_")) + "Hook"


def get_provider_info() -> dict[str, Any]:
    """As airflow/provider_info.schema.json says; `package-name` is the name in pyproject.toml."""
    from importlib.metadata import version

    types = connection_types()
    return {
        "package-name": "ledgerhouse",
        "name": "Ledgerhouse",
        "description": "Crypto books in a warehouse that can prove them: `airflow warehouse …`, "
        "`airflow dags backfill`, connection types of exchanges and DeBank",
        "versions": [version("ledgerhouse")],
        "cli": ["ledgerhouse.operate.commands.get_cli_commands"],
        "connection-types": types,
        "hook-class-names": [kind["hook-class-name"] for kind in types],
    }
