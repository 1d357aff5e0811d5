"""dlt's default merge of landed Coinbase pages into DuckDB; prints the seconds it took.

    .venv-bench/bin/python tests/benchmarks/dlt_load.py WORKDIR FILE…

Runs in .venv-bench (dlt wants packages of its own) and imports nothing of the project. Timed
from the landing files to the merged table; imports and the making of the pipeline are not.
"""

import io
import json
import os
import sys
import time

os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
os.environ.setdefault("RUNTIME__LOG_LEVEL", "ERROR")

import dlt
import zstandard


def records(files):
    for file in files:
        with open(file, "rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            lines = io.TextIOWrapper(stream, encoding="utf-8")
            header = json.loads(next(lines))
            for line in lines:
                page = json.loads(line)
                if page["kind"] == "page":
                    for record in json.loads(page["body"])["data"]:
                        yield {**record, "source": header["source"], "account": header["account"]}


def main(workdir: str, *files: str) -> None:
    pipeline = dlt.pipeline(
        "ledger",
        pipelines_dir=os.path.join(workdir, "pipelines"),
        dataset_name="raw",
        destination=dlt.destinations.duckdb(os.path.join(workdir, "dlt.duckdb")),
    )
    resource = dlt.resource(
        records(files),
        name="exchanges_ledger",
        write_disposition="merge",
        primary_key=("source", "account", "id"),
    )
    began = time.perf_counter()
    pipeline.run(resource).raise_on_failed_jobs()
    took = time.perf_counter() - began
    with pipeline.sql_client() as sql:
        rows = sql.execute_sql("SELECT count(*) FROM exchanges_ledger")[0][0]
    print(json.dumps({"seconds": took, "rows": rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
