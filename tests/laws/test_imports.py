"""Who may import whom, and what no file may do: every source file is read, none is run."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = (
    "extract",
    "ledgerhouse",
    "dags",
    "stack",
    "demo",
    "deploy",
    "sandbox",
    "sqlmesh_project",
    "tests",
    "benchmarks",
)
PRODUCT = ("extract", "ledgerhouse", "dags")

# Seconds an import costs a DAG parse (DESIGN): these belong inside functions.
HEAVY = {
    "great_expectations",
    "ccxt",
    "sqlmesh",
    "pandas",
    "numpy",
    "pyarrow",
    "sqlalchemy",
    "duckdb",
}

# The rooms, in the order of the data: each imports itself and the rooms before it.
ORDER = (
    "core",
    "fetch",
    "ledger",
    "sources",  # extract: vendor to landing
    "config",
    "process",
    "warehouse",
    "plan",
    "load",
    "transform",
    "check",
    "publish",
    "operate",
)  # ledgerhouse: landing to books
EXTRACT = ORDER[:4]
FRONT_DOORS = {
    "ledgerhouse/__init__.py",
    "ledgerhouse/airflow.py",
    "extract/__init__.py",
    "extract/testing.py",
}
# Besides operate/airflow: what Airflow's own command line and UI call, and its notifiers.
AIRFLOW_ROOMS = (
    "ledgerhouse/operate/airflow/",
    "ledgerhouse/operate/commands/",
    "ledgerhouse/operate/ui/",
    "ledgerhouse/operate/alerts/channels.py",
    "ledgerhouse/airflow.py",
)
SLEEPERS = {
    "extract/fetch/client.py",
    "ledgerhouse/warehouse/connection.py",
    "ledgerhouse/operate/airflow/api.py",
    "ledgerhouse/operate/commands/backfill.py",
    "ledgerhouse/operate/commands/follow.py",
}


@dataclass(frozen=True)
class Import:
    """One import statement: `name` is a module, or the module and what is taken from it."""

    file: str
    line: int
    name: str
    at_top: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.name}"


@cache
def files(*folders: str) -> dict[str, ast.Module]:
    """Path below the project → syntax tree, of every Python file in the folders."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found[path.relative_to(ROOT).as_posix()] = ast.parse(path.read_text(), str(path))
    return found


def imports(file: str, tree: ast.Module) -> list[Import]:
    """Every import, `from extract.fetch import landing` as extract.fetch.landing."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    } | {  # read by type checkers only, never run
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{file}:{node.lineno} imports relatively; write the whole name, which says "
                "from which room it comes"
            )
            names = [module_of(node.module, alias.name) for alias in node.names]
        found += [Import(file, node.lineno, name, id(node) not in inside) for name in names]
    return found


def module_of(package: str, name: str) -> str:
    """extract.fetch.landing for `from extract.fetch import landing`."""
    path = ROOT / package.replace(".", "/") / name
    return f"{package}.{name}" if path.is_dir() or path.with_suffix(".py").exists() else package


@cache
def of(folders: tuple[str, ...]) -> list[Import]:
    return [one for file, tree in files(*folders).items() for one in imports(file, tree)]


def room(one: Import) -> str:
    return one.name.split(".")[0]


def refuse(broken: list, rule: str, fix: str) -> None:
    assert not broken, "\n".join([f"{rule}.", *map(str, broken), f"To fix: {fix}."])


def place(name: str) -> str:
    """The room a module of ours is in: warehouse for ledgerhouse.warehouse.schema."""
    parts = name.split(".")
    return parts[1] if parts[0] in ("extract", "ledgerhouse") and len(parts) > 1 else ""


def test_a_room_imports_only_itself_and_the_rooms_before_it():
    rooms = {
        path.stem
        for folder in ("extract", "ledgerhouse")
        for path in (ROOT / folder).glob("[!_]*")
        if path.suffix in ("", ".py")
    } - {Path(door).stem for door in FRONT_DOORS}
    assert rooms == set(ORDER), f"rooms and ORDER differ: {sorted(rooms ^ set(ORDER))}"
    broken = []
    for one in of(PRODUCT[:2]):
        mine, other = place(one.file.removesuffix(".py").replace("/", ".")), place(one.name)
        if (
            mine in ORDER
            and one.name.split(".")[0] in PRODUCT[:2]
            and (other not in ORDER or ORDER.index(other) > ORDER.index(mine))
        ):
            broken.append(one)
    refuse(
        broken,
        "a room imports only itself and the rooms before it: " + " ".join(ORDER),
        "move the code to the later room, or pass what it needs as an argument",
    )


def test_extract_never_imports_ledgerhouse():
    refuse(
        [one for one in of(("extract",)) if room(one) == "ledgerhouse"],
        "extract fills the landing and knows nothing of what is made of it",
        "pass what it needs as an argument",
    )


def test_core_needs_the_standard_library_only():
    refuse(
        [
            one
            for one in of(("extract",))
            if one.file.startswith("extract/core/")
            and room(one) not in sys.stdlib_module_names
            and room(one) not in OURS
        ],
        "extract/core needs the standard library only",
        "put it where it is used",
    )


def test_only_operate_imports_airflow():
    refuse(
        [
            one
            for one in of(PRODUCT[:2])
            if room(one) == "airflow" and not one.file.startswith(AIRFLOW_ROOMS)
        ],
        "only ledgerhouse/operate imports Airflow, so that all else runs and is tested without it",
        "take what Airflow gives as an argument",
    )


def test_dags_import_operators_and_the_registry():
    refuse(
        [
            one
            for one in of(("dags",))
            if room(one) in OURS and not one.name.startswith("ledgerhouse.operate.airflow")
        ],
        "a DAG file imports ledgerhouse.operate.airflow only",
        "put the work into an operator, and let the DAG file state facts",
    )


def test_the_models_import_nothing_of_ours():
    refuse(
        [
            one
            for one in of(("sqlmesh_project",))
            if room(one) in OURS and not one.name.startswith("sqlmesh_project")
        ],
        "sqlmesh_project meets the rest at the raw tables only",
        "read it from a table, or write it out in the project",
    )


def test_the_product_does_not_know_its_launcher_or_its_tests():
    refuse(
        [
            one
            for one in of(PRODUCT)
            if room(one) in {"stack", "demo", "deploy", "tests", "benchmarks"}
        ],
        "extract, ledgerhouse and dags run under any Airflow, with or without the launcher",
        "read it from an environment variable, Variable or Connection",
    )


def test_the_sandbox_is_imported_by_tests_only():
    """The launcher starts it as a process of its own, so that it is reached as a vendor is."""
    refuse(
        [
            one
            for one in of(
                ("extract", "ledgerhouse", "dags", "stack", "demo", "deploy", "sqlmesh_project")
            )
            if room(one) == "sandbox"
        ],
        "the sandbox stands in for the vendors: only tests and benchmarks import it",
        "reach it over HTTP through the Connection's host",
    )
    refuse(
        [one for one in of(("sandbox",)) if room(one) in OURS and room(one) != "sandbox"],
        "the sandbox is written from the vendors' documentation, not from our reading of it",
        "write it again in sandbox/, or two wrongs will agree",
    )


def test_no_code_asks_whether_it_talks_to_the_sandbox():
    broken = []
    for file, tree in files(*PRODUCT).items():
        prose = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            words = [
                getattr(node, "id", ""),
                getattr(node, "attr", ""),
                getattr(node, "arg", "") or "",
            ]
            if isinstance(node, ast.Constant) and id(node) not in prose:
                words.append(str(node.value))
            if any("sandbox" in str(word).lower() for word in words):
                broken.append(f"{file}:{node.lineno} {ast.unparse(node)[:80]}")
    refuse(
        broken,
        "extract, ledgerhouse and dags do the same against the sandbox as against a vendor",
        "let the Connection decide (host, key, extra), or make the sandbox behave as the "
        "vendor does",
    )


def test_nothing_slow_is_imported_at_the_top():
    refuse(
        [one for one in of(PRODUCT) if one.at_top and room(one) in HEAVY],
        "Airflow reads the DAG files every half minute: great_expectations costs 8 s, "
        "ccxt and sqlmesh 3 s, pandas 2 s",
        "import it inside the function that uses it",
    )


def test_only_the_client_and_who_waits_for_others_sleep():
    broken = []
    for file, tree in files(*PRODUCT).items():
        direct = any(one.name in ("time.sleep", "asyncio") for one in imports(file, tree))
        from_time = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and any(a.name == "sleep" for a in node.names)
        ]
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "sleep"
        ]
        if file not in SLEEPERS and (direct or from_time or calls):
            line = (from_time + calls or [tree.body[0]])[0].lineno
            broken.append(f"{file}:{line} sleeps")
    refuse(
        broken,
        f"only {' and '.join(sorted(SLEEPERS))} sleep",
        "raise Retriable and let the client wait, so that pacing and retries are in one place",
    )


@pytest.mark.parametrize("folder", PRODUCT)
def test_the_rules_are_held_over_real_files(folder):
    """An empty folder would keep every rule."""
    assert len(files(folder)) > 1 and of((folder,))
