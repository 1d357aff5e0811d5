"""Imported by every Airflow process when it starts: a worker's tasks fork from what it has loaded.

Without it a task that needs these packages imports them itself, in 8-10 s.
"""

import sys

if sys.argv[1:3] == ["celery", "worker"]:
    import duckdb  # noqa: F401
    import great_expectations  # noqa: F401
    import sqlmesh  # noqa: F401
