"""The accounts that the vendors have, as accounts.toml and Airflow's Connections would name them.

    python -m sandbox.accounts http://127.0.0.1:8099

prints {"accounts": text of an accounts.toml, "connections": {id: fields}} of the vendors in the
demo, for a sandbox at that address.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from sandbox.vendor import Vendor
from sandbox.vendors import in_demo


def entries(vendors: Iterable[Vendor]) -> list[dict[str, str]]:
    """source, account, connection of each account of these vendors."""
    return [{"source": vendor.name, **account} for vendor in vendors for account in vendor.accounts]


def accounts_toml(vendors: Iterable[Vendor]) -> str:
    """The same as the text of a file."""
    return "\n".join(
        "[[account]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entry.items())
        for entry in entries(vendors)
    )


def connections(vendors: Iterable[Vendor], url: str) -> dict[str, dict[str, str]]:
    """Id → fields of the Airflow Connections that open them, of a sandbox at `url`."""
    return {
        account["connection"]: {
            "conn_type": vendor.name,
            **vendor.connection(f"{url}/{vendor.name}"),
        }
        for vendor in vendors
        for account in vendor.accounts
    }


def main() -> None:
    vendors = in_demo()
    opened = connections(vendors, sys.argv[1])
    print(json.dumps({"accounts": accounts_toml(vendors), "connections": opened}))


if __name__ == "__main__":
    main()
