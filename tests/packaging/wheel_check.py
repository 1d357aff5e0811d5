"""The installed wheel, outside the checkout: `airflow dags test sync` against the sandbox.

    python tests/packaging/wheel_check.py PYTHON      (make wheel-check installs the wheel first)

PYTHON is that of an environment that holds the wheel and requirements.txt and nothing else. In a
temporary folder it gets an AIRFLOW_HOME on SQLite, a copy of dags/, the sandbox's accounts, pools and
Connections; the sandbox runs from the checkout. Then the books are read with
`from ledgerhouse import frame`. Ends with 1 where the run fails or publishes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from sandbox import accounts  # noqa: E402
from sandbox.server import serve  # noqa: E402
from sandbox.vendors import in_demo  # noqa: E402

START, NOW = "2026-01-01T00:00:00Z", "2026-01-03T06:00:00Z"

READ = """
import extract, ledgerhouse
from ledgerhouse import frame

print("ledgerhouse", ledgerhouse.__version__, "and extract of", ledgerhouse.__file__.rsplit("/", 2)[0])
for table in ("curated.tx_unified", "curated.daily_balances"):
    rows = frame(table)
    assert len(rows), table
    print(f"{table}: {len(rows)} rows")
print(frame("curated.daily_balances")[["date", "source", "token", "balance"]].tail(3).to_string())
"""


def environment(home: Path, url: str) -> dict[str, str]:
    """The variables of an Airflow in `home` and of the accounts, whose APIs are at `url`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "LEDGERHOUSE"))}
    kept.pop("PYTHONPATH", None)
    opened = accounts.connections(in_demo(), url)
    return kept | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW_VAR_START_TS": START,
        **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(of) for name, of in opened.items()},
    }


def main(python: str) -> int:
    python = str(Path(python).absolute())  # not resolved: it is a link into its environment
    with tempfile.TemporaryDirectory() as folder, serve(now=NOW, start=START) as url:
        home = Path(folder) / "airflow"
        shutil.copytree(ROOT / "dags", home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        (home / "ledgerhouse").mkdir()
        (home / "ledgerhouse" / "accounts.toml").write_text(accounts.accounts_toml(in_demo()))
        env = environment(home, str(url))

        def run(*command: str) -> None:
            print("$", *(command if command[0] != "-c" else ("-c", "…")), flush=True)
            subprocess.run([python, *command], env=env, cwd=folder, check=True)

        try:
            run("-m", "airflow", "db", "migrate")
            opened = accounts.connections(in_demo(), str(url))
            for pool in ("warehouse", *(f"api_{name}" for name in opened)):
                run("-m", "airflow", "pools", "set", pool, "1", "one at a time")
            run("-m", "airflow", "dags", "test", "sync", NOW)
            run("-m", "airflow", "warehouse", "--help")
            run("-c", READ)
        except subprocess.CalledProcessError as error:
            print(f"failed with {error.returncode}: {' '.join(error.cmd[1:5])}", file=sys.stderr)
            return 1
    print("The wheel alone made and read the books.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
