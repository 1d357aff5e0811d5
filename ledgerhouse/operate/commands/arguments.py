"""What can be typed: the commands, their arguments and their help."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_END_DATE,
    ARG_START_DATE,
    ARG_VERBOSE,
    ARG_YES,
    ActionCommand,
    Arg,
    GroupCommand,
    positive_int,
)

from ledgerhouse.operate.commands import command

OUTPUT = Arg(
    ("-o", "--output"),
    choices=("table", "plain", "json"),
    default="table",
    help="table (default), plain (columns by tabs, no colours) or json (amounts as text)",
)
SOURCE = Arg(("--source",), help="only this source, for example debank")
ACCOUNT = Arg(("--account",), help="only this account; the beginning of its name is enough")
DATASET = Arg(("--dataset",), help="only this dataset, for example exchanges_ledger")

BACKFILL = ActionCommand(
    name="backfill",
    help="Run a DAG for every interval of a range of dates, and wait for it",
    description=(
        "Run a DAG for every interval of a range of dates: a backfill of Airflow 3, made and "
        "followed as Airflow 2 did. Both ends are logical dates and belong to the range: "
        "-s 2024-01-01 -e 2024-06-30 ends with the run that begins on June 30 at midnight. "
        "What the warehouse covers already costs no call."
    ),
    epilog=(
        "Exit code: 0 every run succeeded; 1 one has failed, was cancelled, or Airflow cannot "
        "be reached; 2 the arguments cannot be right."
    ),
    func=command("backfill.backfill"),
    args=(
        Arg(("dag_id",), help="the DAG; of ours: sync"),
        ARG_START_DATE,
        ARG_END_DATE,
        Arg(
            ("-n", "--dry-run"),
            action="store_true",
            help="start nothing: print the intervals, and the calls and units they would take",
        ),
        Arg(
            ("--history",),
            action="store_true",
            help="fetch the range by one run of the DAG history, in months: far fewer calls",
        ),
        Arg(("-B", "--run-backwards"), action="store_true", help="newest interval first"),
        Arg(
            ("--reset-dagruns",),
            action="store_true",
            help="run again what has run, succeeded or not (asks first; -y does not)",
        ),
        Arg(("--rerun-failed-tasks",), action="store_true", help="run again what has failed"),
        Arg(
            ("--continue-on-failures",),
            action="store_true",
            help="go on after a run has failed; without it, no further run is started",
        ),
        Arg(
            ("--max-active-runs",),
            type=positive_int(allow_zero=False),
            help="runs at a time (default: as the DAG says)",
        ),
        Arg(("-c", "--conf"), help="params of every run, as JSON: '{\"refetch\": true}'"),
        Arg(("--follow",), action="store_true", help="follow the backfill that is under way"),
        Arg(("--cancel",), action="store_true", help="end the backfill that is under way"),
        ARG_YES,
        OUTPUT,
        ARG_VERBOSE,
    ),
)

WAREHOUSE = GroupCommand(
    name="warehouse",
    help="What the books hold, what they cost, and why",
    description=(
        "Read from the published books, so that no command waits for a run; but `replay` "
        "and `encrypt` write, and `verify` reads everything: they wait for their turn."
    ),
    subcommands=(
        ActionCommand(
            name="status",
            func=command("warehouse.status"),
            args=(SOURCE, ACCOUNT, OUTPUT),
            help="Per account: covered through, gaps, last run, pending rows, balances by status",
            epilog="Exit code 1 when an account has gaps, a balance that is off or a failed run.",
        ),
        ActionCommand(
            name="health",
            func=command("health.health"),
            args=(OUTPUT,),
            help="Whether syncs still come: one line and an exit code, for cron and monitors",
            epilog="Exit code 1 when none has come within stale_after_hours of [alerts].",
        ),
        ActionCommand(
            name="runs",
            func=command("runs.runs"),
            args=(
                Arg(
                    ("-n", "--last"),
                    type=positive_int(allow_zero=False),
                    default=10,
                    help="so many runs, the newest ones (default: 10)",
                ),
                OUTPUT,
            ),
            help="Per run: rows new and changed, calls, units, and what its checks found",
        ),
        ActionCommand(
            name="units",
            func=command("spending.units"),
            args=(SOURCE, OUTPUT),
            help="Per source: calls and units spent, saved and forecast, and what is left",
        ),
        ActionCommand(
            name="coverage",
            func=command("warehouse.coverage"),
            args=(SOURCE, ACCOUNT, DATASET, OUTPUT),
            help="What is known whole, why its paging ended, and the gaps",
        ),
        ActionCommand(
            name="breaks",
            func=command("breaks.breaks"),
            args=(SOURCE, ACCOUNT, OUTPUT),
            help="Where a balance went wrong: window, step, suspect, and what would repair it",
            epilog="Exit code 1 when there is a break, or an entry of adjustments.toml is refused.",
        ),
        ActionCommand(
            name="explain",
            func=command("explain.explain"),
            args=(
                Arg(("account",), help="account name or wallet; its beginning is enough"),
                Arg(("asset",), help="symbol, or the token as in curated.assets"),
                Arg(("day",), help="UTC day, YYYY-MM-DD"),
                SOURCE,
                OUTPUT,
            ),
            help="The rows behind a balance: before, every leg of the day, after",
            epilog="Exit code 1 when the rows do not add up to the balance.",
        ),
        ActionCommand(
            name="export",
            func=command("exporting.export"),
            args=(
                Arg(("--duckdb",), required=True, metavar="FILE", help="the file to write"),
                Arg(("--force",), action="store_true", help="replace the file if it is there"),
                OUTPUT,
            ),
            help="The books as one DuckDB file, which needs no other file to be read",
        ),
        ActionCommand(
            name="shell",
            func=command("shell.shell"),
            args=(Arg(("-c", "--command"), metavar="SQL", help="answer this, and end"),),
            help="DuckDB's own shell on the books, also where they are encrypted",
        ),
        ActionCommand(
            name="verify",
            func=command("verifying.verify"),
            args=(OUTPUT,),
            help="Whether landing, books, warehouse and bookkeeping are as they were written",
            description=(
                "Compare every file that is kept with the digest noted when it was written, and "
                "read every table of the warehouse: what is damaged or missing, and what restores "
                "it. Nothing is changed."
            ),
            epilog="Exit code 1 when something is wrong.",
        ),
        ActionCommand(
            name="encrypt",
            func=command("encrypting.encrypt"),
            args=(
                Arg(
                    ("--off",),
                    action="store_true",
                    help="in plain text, from now on; the key is then in "
                    "LEDGERHOUSE_ENCRYPTION_OLD_KEYS only",
                ),
                OUTPUT,
            ),
            help="Write landing, warehouse and books again under the encryption key that is set",
            description=(
                "After the key in LEDGERHOUSE_ENCRYPTION_KEY was set or changed: landing, warehouse "
                "and books are written again under it. Until then what is there is read as it is, "
                "and what is new is encrypted. Stop the runs first, or let it wait for its turn."
            ),
            epilog="Exit code 1 when a damaged file was left as it is, or a key is missing.",
        ),
        ActionCommand(
            name="replay",
            func=command("replaying.replay"),
            args=(
                Arg(
                    ("--accept-less",),
                    action="store_true",
                    help="go on without landed files that are missing or damaged; the old "
                    "warehouse is kept, and what they cover is fetched again",
                ),
                OUTPUT,
            ),
            help="Make the warehouse again from its landing, without a call; as `make replay`",
        ),
    ),
)
