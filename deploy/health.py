"""Healthcheck of a container: `python -m deploy.health SERVICE [URL]` ends with 0 or says why not.

It runs every half minute in every container, so it imports no Airflow (5 s of CPU) where a
question over HTTP will do: the API server and the scheduler answer for themselves, the
dag-processor's heartbeat is known to the API server, a worker answers a ping through Redis.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request

TIMEOUT_S = 10


def main(arguments: list[str]) -> int:
    service, *rest = arguments
    try:
        CHECKS[service](*rest)
    except Exception as error:  # an unhealthy container is an answer, and its log shows the reason
        print(f"{service} is not well: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def answers(url: str) -> bytes:
    """What `url` answers. Raises on any other status than 2xx, and on silence."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        return answer.read()


def component(url: str, name: str) -> None:
    """Raises RuntimeError unless the health report at `url` calls `name` healthy."""
    status = json.loads(answers(url))[name]["status"]
    if status != "healthy":
        raise RuntimeError(f"its status is {status}")


def api_server(url: str) -> None:
    component(f"{url}/api/v2/monitor/health", "metadatabase")


def scheduler(url: str) -> None:
    answers(f"{url}/health")  # 503 without a recent heartbeat


def dag_processor(url: str) -> None:
    component(f"{url}/api/v2/monitor/health", "dag_processor")


def sandbox(url: str) -> None:
    answers(f"{url}/_stats")


def worker(name: str = "") -> None:
    """Raises RuntimeError when no worker of this name (default: celery@HOSTNAME) answers."""
    from celery import Celery

    name = name or f"celery@{socket.gethostname()}"
    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    if not app.control.ping(destination=[name], timeout=TIMEOUT_S, limit=1):
        raise RuntimeError(f"{name} did not answer in {TIMEOUT_S} s")


CHECKS = {
    "api-server": api_server,
    "scheduler": scheduler,
    "dag-processor": dag_processor,
    "sandbox": sandbox,
    "worker": worker,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
