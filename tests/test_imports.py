"""Who may import whom, and what no file may do: every source file is read, none is run."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("extract", "dags", "stack", "deploy", "sandbox", "sqlmesh_project", "tests", "benchmarks")
PRODUCT = ("extract", "dags")

# Seconds an import costs a DAG parse (DESIGN): these belong inside functions.
HEAVY = {"great_expectations", "ccxt", "sqlmesh", "pandas", "numpy", "pyarrow", "sqlalchemy",
         "duckdb"}

# The rooms of extract/, and which other rooms one may reach, also through files that are no room
# (pacing, merge, schema …). A room that is not named here may reach all but hooks and operators.
ROOMS = {"alert_operators", "alerts", "attempts", "budget", "calls", "checkpoints", "checks",
         "client", "coverage", "hooks", "incidents", "landing", "loader", "mirror", "operators",
         "rebuild", "refresh", "refresh_operators", "sources", "transform", "warehouse"}
MAY_REACH = {
    "extract/client.py": set(),
    "extract/landing.py": set(),
    "extract/warehouse.py": set(),
    "extract/loader.py": {"landing"},
    "extract/checkpoints.py": set(),
    "extract/sources/__init__.py": set(),
    "extract/sources/[!_]*.py": {"client"},
    "extract/calls.py": set(),
    "extract/account_units.py": set(),
    "extract/budget.py": {"client", "sources"},
    "extract/alerts.py": {"coverage", "sources"},
    "extract/incidents.py": {"alerts", "coverage", "sources"},
    "extract/attempts.py": set(),
    "extract/mirror.py": {"attempts"},
    "extract/coverage.py": {"sources"},
    "extract/refresh.py": {"coverage", "sources"},
    "extract/rebuild.py": {"transform", "warehouse"},
}
AIRFLOW_FILES = {"extract/hooks.py", "extract/operators.py", "extract/task.py",
                 *(f"extract/{name}_operators.py" for name in ("alert", "fetch", "load", "refresh"))}
AIRFLOW_ROOMS = ("extract/commands/", "extract/ui/")  # what Airflow's own command line and UI call
SLEEPERS = {"extract/client.py", "extract/warehouse.py", "extract/commands/backfill.py"}


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
    """Every import, `from extract import landing` as extract.landing."""
    inside = {id(node) for function in ast.walk(tree)
              if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
              for node in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{file}:{node.lineno} imports relatively; write the whole name, which says "
                "from which room it comes")
            names = [module_of(node.module, alias.name) for alias in node.names]
        found += [Import(file, node.lineno, name, id(node) not in inside) for name in names]
    return found


def module_of(package: str, name: str) -> str:
    """extract.landing for `from extract import landing`, extract.loader for `… import load`."""
    path = ROOT / package.replace(".", "/") / name
    return f"{package}.{name}" if path.is_dir() or path.with_suffix(".py").exists() else package


@cache
def of(folders: tuple[str, ...]) -> list[Import]:
    return [one for file, tree in files(*folders).items() for one in imports(file, tree)]


def room(one: Import) -> str:
    return one.name.split(".")[0]


def refuse(broken: list, rule: str, mend: str) -> None:
    assert not broken, "\n".join([f"{rule}.", *map(str, broken), f"To mend: {mend}."])


def chains(start: str) -> dict[str, str]:
    """Every module of extract/ that `start` (a file) reaches, and through which imports."""
    edges: dict[str, set[str]] = {}
    for one in of(("extract",)):
        if room(one) == "extract":
            edges.setdefault(one.file, set()).add(one.name)
    reached, waiting = {}, [(start, start)]
    while waiting:
        file, way = waiting.pop()
        for name in sorted(edges.get(file, ())):
            if name not in reached:
                reached[name] = f"{way} → {name}"
                path = ROOT / name.replace(".", "/")
                inner = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
                waiting.append((inner.relative_to(ROOT).as_posix(), reached[name]))
    return reached


@pytest.mark.parametrize(("pattern", "allowed"), MAY_REACH.items())
def test_a_room_of_extract_knows_only_what_lies_below_it(pattern, allowed):
    found = [path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)]
    assert found, f"{pattern} is gone: name its heir in this test"
    refuse([way for file in found for name, way in chains(file).items()
            if name.split(".")[1] in ROOMS - allowed - {Path(file).stem}],
           f"{pattern} knows source, datasets and {', '.join(sorted(allowed)) or 'no other room'}",
           "pass what it needs as an argument, or move the code to a file that may know both "
           "(hooks.py and operators.py know all of extract)")


def test_the_words_know_nothing_but_each_other():
    refuse([*chains("extract/source.py").values()], "source.py is the words all others speak",
           "move what needs another file out of it")
    refuse([way for name, way in chains("extract/datasets.py").items()
            if name != "extract.source"], "datasets.py knows source.py only",
           "move what needs another file out of it")
    standard = [one for one in of(("extract",)) if one.file == "extract/source.py"
                and room(one) not in sys.stdlib_module_names and room(one) not in OURS]
    refuse(standard, "source.py needs the standard library only", "put it where it is used")


def test_nobody_below_imports_the_airflow_files():
    refuse([one for one in of(("extract",)) if one.name in (
        file.removesuffix(".py").replace("/", ".") for file in AIRFLOW_FILES)
            and one.file not in AIRFLOW_FILES and not one.file.startswith(AIRFLOW_ROOMS)],
           "hooks.py and operators.py know all of extract, and nothing of extract knows them",
           "move what is needed out of them into a file of its own")


def test_only_hooks_and_operators_import_airflow():
    refuse([one for one in of(("extract",)) if room(one) == "airflow"
            and one.file not in AIRFLOW_FILES and not one.file.startswith(AIRFLOW_ROOMS)],
           f"only {' and '.join(sorted(AIRFLOW_FILES))} import Airflow, so that all else runs "
           "and is tested without it",
           "take what Airflow gives as an argument")


def test_dags_import_operators_and_the_registry():
    refuse([one for one in of(("dags",)) if room(one) in OURS
            and one.name not in ("extract.operators", "extract.refresh_operators",
                                 "extract.sources")],
           "a DAG file imports the operators and extract.sources only",
           "put the work into an operator, and let the DAG file state facts")


def test_the_models_import_nothing_of_ours():
    refuse([one for one in of(("sqlmesh_project",)) if room(one) in OURS
            and not one.name.startswith("sqlmesh_project")],
           "sqlmesh_project meets the rest at the raw tables only",
           "read it from a table, or write it out in the project")


def test_the_product_does_not_know_its_launcher_or_its_tests():
    refuse([one for one in of(PRODUCT) if room(one) in {"stack", "deploy", "tests", "benchmarks"}],
           "extract and dags run under any Airflow, with or without the launcher",
           "read it from an environment variable, Variable or Connection")


def test_the_sandbox_is_imported_by_tests_only():
    """The launcher starts it as a process of its own, so that it is reached as a vendor is."""
    refuse([one for one in of(("extract", "dags", "stack", "deploy", "sqlmesh_project"))
            if room(one) == "sandbox"],
           "the sandbox stands in for the vendors: only tests and benchmarks import it",
           "reach it over HTTP through the Connection's host")
    refuse([one for one in of(("sandbox",)) if room(one) in OURS and room(one) != "sandbox"],
           "the sandbox is written from the vendors' documentation, not from our reading of it",
           "write it again in sandbox/, or two wrongs will agree")


def test_no_code_asks_whether_it_talks_to_the_sandbox():
    broken = []
    for file, tree in files(*PRODUCT).items():
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
                 and isinstance(node.value, ast.Constant)}
        for node in ast.walk(tree):
            words = [getattr(node, "id", ""), getattr(node, "attr", ""),
                     getattr(node, "arg", "") or ""]
            if isinstance(node, ast.Constant) and id(node) not in prose:
                words.append(str(node.value))
            if any("sandbox" in str(word).lower() for word in words):
                broken.append(f"{file}:{node.lineno} {ast.unparse(node)[:80]}")
    refuse(broken, "extract and dags do the same against the sandbox as against a vendor",
           "let the Connection decide (host, key, extra), or make the sandbox behave as the "
           "vendor does")


def test_nothing_slow_is_imported_at_the_top():
    refuse([one for one in of(PRODUCT) if one.at_top and room(one) in HEAVY],
           "Airflow reads the DAG files every half minute: great_expectations costs 8 s, "
           "ccxt and sqlmesh 3 s, pandas 2 s",
           "import it inside the function that uses it")


def test_only_the_client_and_who_waits_for_others_sleep():
    broken = []
    for file, tree in files(*PRODUCT).items():
        direct = any(one.name in ("time.sleep", "asyncio") for one in imports(file, tree))
        from_time = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                     and node.module == "time" and any(a.name == "sleep" for a in node.names)]
        calls = [node for node in ast.walk(tree)
                 if isinstance(node, ast.Attribute) and node.attr == "sleep"]
        if file not in SLEEPERS and (direct or from_time or calls):
            line = (from_time + calls or [tree.body[0]])[0].lineno
            broken.append(f"{file}:{line} sleeps")
    refuse(broken, f"only {' and '.join(sorted(SLEEPERS))} sleep",
           "raise Retriable and let the client wait, so that pacing and retries are in one place")


@pytest.mark.parametrize("folder", PRODUCT)
def test_the_rules_are_held_over_real_files(folder):
    """An empty folder would keep every rule."""
    assert len(files(folder)) > 1 and of((folder,))
