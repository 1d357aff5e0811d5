"""The wheel: two packages, the SQLMesh project inside, bounds that are true, nothing else.

`make wheel-check` does more, and takes minutes: it installs the wheel and requirements.txt into an
empty environment and runs a sync there.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("extract", "ledgerhouse")
IMPORT_IN_WHEEL = """
import extract, ledgerhouse
from ledgerhouse import files, frame
from ledgerhouse.config import accounts_file, var_dir
from ledgerhouse.transform.sqlmesh_context import PROJECT

print(ledgerhouse.__version__)
for module in (extract, ledgerhouse):
    print(module.__file__)
print(PROJECT / "config.py")
print(accounts_file())
print(var_dir())
assert callable(files) and callable(frame) and (PROJECT / "config.py").exists()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built of the files that git knows and of some that it must leave out."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    source = folder / "source"
    for name in names.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    for left_over in ("sqlmesh_project/.cache/x", "ledgerhouse/__pycache__/x.pyc", "var/x.py"):
        (source / left_over).parent.mkdir(parents=True, exist_ok=True)
        (source / left_over).touch()
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    built = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(source)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-2000:]
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the wheel's packages, as pip installs them."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True, capture_output=True)
    return target


def files_of(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}


def text_of(wheel: Path, name: str) -> str:
    (path,) = [each for each in files_of(wheel) if each.endswith(f".dist-info/{name}")]
    return zipfile.ZipFile(wheel).read(path).decode()


def tracked(folder: str) -> set[str]:
    """The files of a folder that git knows of, or would with the next `git add`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


def outside(installed: Path, *command: str, home: Path) -> str:
    """What a command says with the installed packages first, in a folder that is no checkout."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "LEDGERHOUSE"))}
    env |= {"PYTHONPATH": str(installed), "AIRFLOW_HOME": str(home)}
    run = subprocess.run(
        [sys.executable, *command], cwd=home, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def test_it_has_two_names_and_every_file_of_them_and_no_other(wheel):
    inside = {name for name in files_of(wheel) if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in inside} == set(PACKAGES)
    models = {f"ledgerhouse/{name}" for name in tracked("sqlmesh_project")}
    assert inside == tracked("extract") | tracked("ledgerhouse") | models
    assert {"extract/py.typed", "ledgerhouse/py.typed"} <= inside
    for ending in (".html", ".js", ".css", ".svg", ".sql", ".yaml"):
        assert any(name.endswith(ending) for name in inside), ending


def test_its_metadata_is_that_of_pyproject_with_licence_and_bounds(wheel):
    metadata = Parser().parsestr(text_of(wheel, "METADATA"))
    assert metadata["Name"] == "ledgerhouse" and metadata["Version"] == PROJECT["version"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert sorted(metadata["Requires-Python"].split(",")) == ["<3.15", ">=3.11"]
    assert "Apache License" in text_of(wheel, "licenses/LICENSE") and text_of(
        wheel, "licenses/NOTICE"
    )
    wanted = {
        canonicalize_name((each := Requirement(text)).name): each
        for text in metadata.get_all("Requires-Dist")
        if "extra" not in text
    }
    for name, inside, out in (  # what pip must not choose, and why: pyproject.toml
        ("apache-airflow", "3.3.2", "3.4.0"),
        ("sqlmesh", "0.236.4", "0.228.0"),
        ("sqlmesh", "0.236.4", "0.237.0"),
        ("duckdb", "1.5.6", "2.0.0"),
        ("pandas", "2.3.3", "3.0.0"),
        ("great-expectations", "1.24.1", "1.25.0"),
    ):
        assert wanted[name].specifier.contains(inside), name
        assert not wanted[name].specifier.contains(out), name


def test_the_locks_keep_the_bounds():
    lock = (ROOT / "requirements.txt").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==([^ ;]+)", lock, re.M))
    for text in PROJECT["dependencies"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text
    locks = [ROOT / f"requirements{more}.txt" for more in ("", "-stack", "-dev")]
    for file in (*locks, ROOT / "deploy/requirements.txt"):
        other = dict(re.findall(r"^([\w.-]+)==([^ ;]+)(?: \\)?$", file.read_text(), re.M))
        apart = {name for name in other if pins.get(name, other[name]) != other[name]}
        assert other and not apart, f"{file.name}: make lock ({apart})"
        bare = re.findall(r"^[\w.-]+==[^\\\n]+$", file.read_text(), re.M)
        assert not bare, f"{file.name}: without a hash: {bare}"
        assert "://" not in file.read_text(), f"{file.name} names a host"


def imported(folder: str) -> set[str]:
    """Top-level names that the files of a folder import, wherever in the file."""
    names = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return names


def test_what_the_packages_import_is_declared_and_nothing_more():
    declared = {
        canonicalize_name(Requirement(text).name)
        for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["postgres"])
    }
    names = set().union(*(imported(folder) for folder in (*PACKAGES, "sqlmesh_project", "dags")))
    providers = {  # the namespace package airflow belongs to many distributions
        "-".join(["apache-airflow-providers", *parts[2 : 4 if parts[2] == "common" else 3]])
        for module in names
        if (parts := module.split("."))[:2] == ["airflow", "providers"]
    }
    tops = (
        {name.split(".")[0] for name in names}
        - set(sys.stdlib_module_names)
        - {*PACKAGES, "airflow"}
    )
    owners = packages_distributions()
    unknown = tops - set(owners)
    used = {canonicalize_name(owner) for top in tops - unknown for owner in owners[top]}
    assert not unknown, unknown
    assert used | providers | {"apache-airflow"} <= declared
    # Found by name only: the driver of Airflow's API server.
    assert declared - used - providers - {"apache-airflow"} == {"asyncpg"}


def test_outside_the_checkout_it_is_imported_from_where_it_is_installed(installed, tmp_path):
    version, *paths, accounts, var = outside(
        installed, "-c", IMPORT_IN_WHEEL, home=tmp_path
    ).splitlines()
    assert version == PROJECT["version"]
    assert all(path.startswith(str(installed)) for path in paths), paths
    # Nothing is written beside installed packages.
    assert accounts == str(tmp_path / "ledgerhouse" / "accounts.toml")
    assert var == str(tmp_path / "ledgerhouse" / "var")


def test_outside_the_checkout_airflow_has_its_commands_and_its_page(installed, wheel, tmp_path):
    points = text_of(wheel, "entry_points.txt")
    assert re.findall(r"^\[(.+)\]$", points, re.M) == ["airflow.plugins", "apache_airflow_provider"]
    listed = outside(installed, "-m", "airflow", "warehouse", "--help", home=tmp_path)
    for command in ("status", "explain", "replay"):
        assert command in listed
    code = (
        "from importlib.metadata import entry_points\n"
        "for group in ('airflow.plugins', 'apache_airflow_provider'):\n"
        "    print([e.load().__module__ for e in entry_points(group=group) if e.dist.name == 'ledgerhouse'])"
    )
    loaded = outside(installed, "-c", code, home=tmp_path)
    assert "ledgerhouse.operate.ui.plugin" in loaded
    assert "ledgerhouse.operate.airflow.provider" in loaded


def test_the_image_of_the_composition_is_named_after_the_version():
    tags = re.findall(r"image: ledgerhouse:(\S+)", (ROOT / "docker-compose.yaml").read_text())
    assert tags == [PROJECT["version"]]
