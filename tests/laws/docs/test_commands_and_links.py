"""Commands, links and pictures of the pages are there."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from tests.laws.docs.pages import FENCE, PAGES, ROOT, blocks, spans

COMMAND = re.compile(r"(?:make|airflow|\.venv/bin/python -m|python -m) .*")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def typed(page: Path) -> list[str]:
    """The commands of a page: in backticks, and lines of blocks that hold no output."""
    lines = [
        line.strip().removeprefix("$ ")
        for text in blocks(page, "", "bash", "sh")
        for line in text.splitlines()
    ]
    found = [c for c in (*spans(page), *lines) if COMMAND.fullmatch(c)]
    return sorted({c for c in found if not re.search(r"[…|]|[A-Z]{4,} [A-Z]{3,}", c)})


# --- commands -------------------------------------------------------------------------------------


def test_commands_are_found():
    found = {c for page in PAGES for c in typed(page)}
    assert {"make demo", "make replay"} <= found and len(found) > 12
    assert any("dags backfill" in c for c in found) and any("warehouse explain" in c for c in found)


@pages
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for command in typed(page):
        if command.startswith("make "):
            goals = [word for word in shlex.split(command)[1:] if "=" not in word]
            assert goals and set(goals) <= targets, f"{page.name}: {command}"


@pages
def test_every_airflow_command_parses(page):
    from airflow.cli import cli_parser

    for command in typed(page):
        words = shlex.split(command)
        if words[:2] == ["make", "airflow"]:
            words = ["airflow", *shlex.split(words[2].removeprefix("ARGS="))]
        if words[0] != "airflow" or words[1:] in (["warehouse"], ["dags", "backfill"]):
            continue
        try:
            cli_parser.get_parser().parse_args(words[1:])
        except SystemExit as end:
            # `airflow warehouse explain` names a command; what is spelt out must be whole.
            assert end.code == 0 or len(words) <= 3, f"{page.name}: {command}"
            group = {c.name: c for c in cli_parser.airflow_commands}[words[1]]
            assert words[2] in {c.name for c in group.subcommands}, f"{page.name}: {command}"


@pages
def test_every_python_module_and_script_that_is_run_exists(page):
    for command in typed(page):
        words = shlex.split(command)
        if "-m" in words and words[0].endswith("python"):
            module = words[words.index("-m") + 1]
            assert importlib.util.find_spec(module), f"{page.name}: {command}"
    for path in re.findall(r"(?:docs|tests|stack)/[\w/]+\.py", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def anchors(page: Path) -> set[str]:
    from docs.make_reference import anchor

    return {
        anchor(title.strip())
        for title in re.findall(
            r"^#+ (.*)$", FENCE.sub("", page.read_text()).replace("`", ""), re.M
        )
    }


# --- links and pictures ---------------------------------------------------------------------------


@pages
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src(?:set)?="([^"]+)"', text):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, part = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{page.name} links to {target}"
        if part and to.suffix == ".md":
            assert part in anchors(to), f"{page.name} links to {target}"


def test_every_page_is_reached_from_another():
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    }
    assert set(PAGES) - linked <= {ROOT / "README.md", ROOT / "docs/README.md"}


def test_pictures_are_small_and_readable():
    import xml.etree.ElementTree as xml

    for name in ("example-balances", "example-flows", "example-movements"):
        picture = (ROOT / f"docs/images/{name}.png").read_bytes()
        assert picture[:8] == b"\x89PNG\r\n\x1a\n" and len(picture) <= 150_000, name
    drawn = xml.fromstring((ROOT / "docs/images/concepts.svg").read_text())
    words = " ".join(t for t in drawn.itertext())
    for word in (
        "landing",
        "raw",
        "curated",
        "published",
        "coverage",
        "lookback",
        "gap",
        "budget",
        "prefers-color-scheme: dark",
    ):
        assert word in words, word
