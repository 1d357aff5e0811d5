"""Data Docs: the checkpoints' pages, as HTML that renders without a network.

`<docs_dir>/index.html` lists the runs; `runs/<run>/<table>.html` is Great Expectations' own page
of one checkpoint, `runs/<run>/run.json` the run in numbers, `static/` what the pages load.
Great Expectations' templates link Bootstrap, jQuery, icons and its logo from six CDNs; the same
files come with the package Bootstrap-Flask (MIT), are copied beside the pages, and the links
rewritten. Charts (Vega) and sortable tables are dropped: no suite here draws one.

Only the run's own pages are rendered; the site builder would read every run again.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from extract.core.interval import UTC, Interval, iso

BOOTSTRAP = {  # file under static/ → its place in the package flask_bootstrap
    "bootstrap.min.css": "static/bootstrap4/css/bootstrap.min.css",
    "bootstrap.min.js": "static/bootstrap4/js/bootstrap.min.js",
    "popper.min.js": "static/bootstrap4/umd/popper.min.js",
    "jquery.min.js": "static/bootstrap4/jquery.min.js",
    "bootstrap-icons.woff2": "static/bootstrap4/css/font/fonts/bootstrap-icons.woff2",
}
GREAT_EXPECTATIONS = {
    "favicon.ico": "render/view/static/images/favicon.ico",
    "logo-long.png": "render/view/static/images/logo-long.png",
}
# The five icons the templates use, by their Font Awesome names, from Bootstrap's icon font.
STYLE = """
@font-face { font-family: docs-icons; src: url(bootstrap-icons.woff2) format("woff2"); }
.fa::before, .fas::before, .far::before { font-family: docs-icons; font-style: normal;
  font-weight: 400; display: inline-block; line-height: 1; vertical-align: -.125em; }
.fa-check-circle::before { content: "\\f26a"; }
.fa-times::before { content: "\\f622"; }
.fa-exclamation-triangle::before { content: "\\f33a"; }
.fa-question-circle::before { content: "\\f504"; }
.fa-comment::before { content: "\\f24b"; }
"""
HEAD = """<link rel="stylesheet" href="{static}bootstrap.min.css">
<link rel="stylesheet" href="{static}docs.css">
<link rel="shortcut icon" href="{static}favicon.ico" type="image/x-icon">
<script src="{static}jquery.min.js"></script>
<script src="{static}popper.min.js"></script>
<script src="{static}bootstrap.min.js"></script>
"""
ROOT = "../../"  # from a run's page to docs_dir


@dataclass(frozen=True)
class Page:
    """One checkpoint of a run: Great Expectations' result (None where it raised) and ours."""

    table: str
    answer: Any
    results: Sequence[Any]


def write(
    docs_dir: Path, run_id: str, interval: Interval, pages: Sequence[Page], *, keep: int
) -> Path:
    """Write the pages of a run, forget all but the newest `keep` runs, rewrite the index.

    Returns the run's folder. A run written again replaces itself; readers meet whole runs only.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: the run just made is kept, so give 1 or more")
    runs = docs_dir / "runs"
    _copy_static(docs_dir / "static")
    folder = runs / folder_of(run_id)
    draft = runs / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    render = _renderer(run_id)
    for page in pages:
        (draft / f"{page.table}.html").write_text(render(page))
    facts = {
        "run_id": run_id,
        "start": iso(interval.start),
        "end": iso(interval.end),
        "checked_at": iso(datetime.now(UTC)),
        "tables": {page.table: _tally(page.results) for page in pages},
        "failed": [str(r) for page in pages for r in page.results if not r.success],
    }
    (draft / "run.json").write_text(json.dumps(facts))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(draft, folder)
    _write_index(docs_dir, keep)
    return folder


def folder_of(run_id: str) -> str:
    """A folder name for any run id: readable, and different for different ids."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", run_id).strip(".")[:80]
    return f"{plain}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def _tally(results) -> dict[str, int]:
    tally = {"passed": 0, "critical": 0, "warning": 0, "info": 0}
    for result in results:
        tally["passed" if result.success else result.severity] += 1
    return tally


def _renderer(run_id: str) -> Callable[[Page], str]:
    """page → its HTML, what failed first. One for a run: it compiles sixteen templates."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    renderer, view = ValidationResultsPageRenderer(run_info_at_end=True), DefaultJinjaPageView()

    def render(page: Page) -> str:
        failed = _list(str(r) for r in page.results if not r.success)
        title = f"{page.table} · {run_id}"
        if page.answer is None:
            return _frame(title, ROOT, failed)
        answer = copy.copy(page.answer)
        answer.results = [copy.copy(result) for result in page.answer.results]
        for result in answer.results:
            result.result = _escaped(result.result)
            result.exception_info = _escaped(result.exception_info)
        return offline(view.render(renderer.render(answer)), title, failed)

    return render


def _escaped(value):
    """The same with HTML in its texts made harmless: the templates do not escape what they quote,
    and anybody may mint a token that is called <script>."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_escaped, value))
    return value


def offline(html: str, title: str, failed: str = "") -> str:
    """Great Expectations' page with every outside link gone, under our title and findings."""
    static = f"{ROOT}static/"
    html = re.sub(r"<link\b[^>]*>", "", html)
    html = re.sub(r"<script\b[^>]*\bsrc=[^>]*>\s*</script>", "", html)
    html = re.sub(r"<footer>.*?</footer>", "", html, flags=re.S)
    html = re.sub(r"url\(['\"]?https?://[^)]*\)", "none", html)
    html = re.sub(r'src="https?://[^"]*/logo-long\.png[^"]*"', f'src="{static}logo-long.png"', html)
    html = re.sub(r'href="(\.\./)*index\.html"', f'href="{ROOT}index.html"', html)
    # Suites have no page of their own here: they are Python.
    html = re.sub(r'<a href="(?:\.\./)*expectations/[^"]*"[^>]*>(.*?)</a>', r"\1", html)
    html = re.sub(
        r'(<li class="[^"]*breadcrumb-item active"[^>]*>).*?(</li>)',
        lambda m: m[1] + escape(title) + m[2],
        html,
        flags=re.S,
    )
    # The dark theme is a stylesheet of its own on a CDN; half of it is worse than none.
    html = html.replace("(prefers-color-scheme: dark)", "not all")
    html = re.sub(r'<div class="col-md-10 [^>]*>', lambda m: m[0] + failed, html, count=1)
    return html.replace("</head>", HEAD.format(static=static) + "</head>", 1)


def _list(lines) -> str:
    items = "".join(f"<li><small>{escape(line)}</small></li>" for line in lines)
    return f'<ul class="mt-2 pl-4">{items}</ul>' if items else ""


def _copy_static(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for package, files in (
        ("flask_bootstrap", BOOTSTRAP),
        ("great_expectations", GREAT_EXPECTATIONS),
    ):
        for name, place in files.items():
            source = _package(package) / place
            there = target / name
            if not there.exists() or there.stat().st_size != source.stat().st_size:
                shutil.copyfile(source, there)
    (target / "docs.css").write_text(STYLE)


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(
            f"Data Docs take their stylesheets from the package {name}, which is not installed: "
            "pip install -r requirements.txt"
        )
    return Path(spec.submodule_search_locations[0])


def _write_index(docs_dir: Path, keep: int) -> None:
    runs = []
    for facts in (docs_dir / "runs").glob("*/run.json"):
        if not facts.parent.name.startswith("."):
            runs.append((json.loads(facts.read_text()), facts.parent))
    runs.sort(key=lambda run: (run[0]["checked_at"], run[1].name), reverse=True)
    for _, folder in runs[keep:]:
        shutil.rmtree(folder)
    draft = docs_dir / f".index.{os.getpid()}.html"
    draft.write_text(_frame("Checkpoints", "", "".join(_card(*run) for run in runs[:keep])))
    os.replace(draft, docs_dir / "index.html")


def _card(facts: dict, folder: Path) -> str:
    """One run in the index: its verdict, what failed, and a link for each table."""
    bad = {s: sum(t[s] for t in facts["tables"].values()) for s in ("critical", "warning", "info")}
    colour = "danger" if bad["critical"] else "warning" if bad["warning"] else "success"
    verdict = ", ".join(f"{n} {s}" for s, n in bad.items() if n) or "all passed"
    links = "".join(
        f'<a class="btn btn-sm mr-1 mb-1 btn-outline-{_colour(tally)}" '
        f'href="runs/{folder.name}/{table}.html">{table} {tally["passed"]}/{sum(tally.values())}'
        "</a>"
        for table, tally in facts["tables"].items()
    )
    return (
        f'<div class="card mb-3"><div class="card-header">'
        f'<span class="badge badge-{colour}">{verdict}</span> '
        f"<strong>{escape(facts['run_id'])}</strong> "
        f'<span class="text-muted">[{facts["start"]}, {facts["end"]}), checked '
        f"{facts['checked_at'][:19]}Z</span></div>"
        f'<div class="card-body p-3">{links}{_list(facts["failed"])}</div></div>'
    )


def _colour(tally: dict) -> str:
    return (
        "danger"
        if tally["critical"]
        else "warning"
        if tally["warning"]
        else ("info" if tally["info"] else "success")
    )


def _frame(title: str, root: str, body: str) -> str:
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="UTF-8">'
        f"<title>{escape(title)}</title>{HEAD.format(static=root + 'static/')}</head>"
        f'<body><div class="container-fluid p-4"><h3><a href="{root}index.html">'
        f"Ledgerhouse</a> · {escape(title)}</h3>{body}</div></body></html>"
    )
