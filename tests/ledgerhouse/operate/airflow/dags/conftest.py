"""The DAGs as Airflow parses them."""

from __future__ import annotations

import pytest

from tests.ledgerhouse.operate.airflow.dags.scene import FACTS, HEAVY, ROOT, run


@pytest.fixture(scope="session")
def parsed(tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    return run(
        FACTS,
        home,
        str(ROOT / "dags"),
        " ".join(HEAVY),
        SYNC_START_DATE="2026-01-31T06:00:00Z",
        RETRY_DELAY_S="3",
    )


@pytest.fixture(scope="module", params=["sync", "history", "weekly_refresh"])
def tasks(parsed, request):
    return parsed["dags"][request.param]["tasks"]
