# make demo   two years of books from the sandbox in one go, with a report at the end
# make up     the same services kept running, until Ctrl-C
# make ui     the books of the last demo, in Airflow's UI, until Ctrl-C
# make plan ARGS="dev --include-unmodified"   sqlmesh plan, with the stack up or down
# make models lint and test the models; ARGS="table_diff prod:dev …": sqlmesh on the warehouse
# make airflow ARGS="dags backfill -s 2026-01-01 -e 2026-01-31 sync"   a command of the running stack
# make shell  a shell in which `airflow …` is that of the running stack
# make replay the warehouse again from its landing, without a call; ARGS=--accept-less: though landed files are missing
# make reference   writes docs/reference.md from the code
# make dev    installs what tests, lint, pictures and duckdb's command line need
# make test   all tests
# make test-fast   the tests that are not marked live, slow or browser
# make lint   ruff check, ruff format --check, pyright, SQLMesh's linter
# make format ruff rewrites the files
# make lock   the requirements files again from pyproject.toml; ARGS=--upgrade: newest versions
# make torture N=20   random lives with faults and kill -9; ARGS=--curated: the models and books too
# make bench  measures it all and writes tests/benchmarks/RESULTS.md; ARGS=load: only that one; ARGS="--against REV": beside a git revision
# make compose-check   docker-compose.yaml's services as processes, end to end, without Docker
# make wheel  the package, in dist/
# make wheel-check   the package alone in an empty environment: a sync against the sandbox
# make clean  removes what these made: var/, dist/, the environments and caches

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.requirements
DEV_STAMP := $(VENV)/.requirements-dev
RUN := $(VENV)/bin/python
BENCH := .venv-bench
BENCH_STAMP := $(BENCH)/.requirements
COMPOSE := .venv-compose
COMPOSE_STAMP := $(COMPOSE)/.requirements
WHEEL := .venv-wheel
INSTALL := -m pip install --quiet --quiet --disable-pip-version-check
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/uv pip compile --quiet --universal \
	--python-version 3.11 --generate-hashes --no-annotate $(ARGS)

.PHONY: demo up ui plan models replay airflow shell reference dev test test-fast lint format lock \
	torture bench compose-check wheel wheel-check clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	@$(RUN) -m demo

up: $(STAMP)
	@$(RUN) -m stack up

ui: $(STAMP)
	@$(RUN) -m stack ui

plan: $(STAMP)
	@$(RUN) -m stack models plan $(ARGS)

models: $(STAMP)
	@$(RUN) -m stack models $(ARGS)

replay: $(STAMP)
	@$(RUN) -m stack replay $(ARGS)

airflow: $(STAMP)
	@$(RUN) -m stack airflow $(ARGS)

shell: $(STAMP)
	@$(RUN) -m stack shell

reference: $(STAMP)
	@$(RUN) -m docs.make_reference

dev: $(DEV_STAMP)

# Three workers on two cores: what starts Airflow or PostgreSQL waits more than it computes.
PYTEST := -m pytest tests -n 3 --dist loadfile --no-loadscope-reorder

test: $(DEV_STAMP)
	@$(RUN) $(PYTEST)

test-fast: $(DEV_STAMP)
	@$(RUN) $(PYTEST) -m "not live and not slow and not browser"

lint: $(DEV_STAMP)
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(VENV)/bin/pyright
	@var=$$(mktemp -d) && trap 'rm -rf "$$var"' EXIT && LEDGERHOUSE_VAR=$$var LEDGERHOUSE_STATE_URI= \
		SQLMESH__DISABLE_ANONYMIZED_ANALYTICS=true \
		$(VENV)/bin/sqlmesh --paths sqlmesh_project --log-file-dir $$var lint

format: $(DEV_STAMP)
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

# The versions that the files hold are kept where they can be. The image's file names the extras:
# pip 23 does not take celery for celery[redis] where it asks for hashes.
lock: $(DEV_STAMP)
	@$(COMPILE) pyproject.toml -o requirements.txt
	@$(COMPILE) --group stack -c requirements.txt -o requirements-stack.txt
	@$(COMPILE) --group dev -c requirements.txt -c requirements-stack.txt -o requirements-dev.txt
	@$(COMPILE) --no-strip-extras --group deploy -c requirements.txt -c requirements-stack.txt -o deploy/requirements.txt

torture: $(STAMP)
	@$(RUN) tests/laws/torture.py --lives $(or $(N),20) $(ARGS)

bench: $(STAMP) $(BENCH_STAMP)
	@$(RUN) -m tests.benchmarks.run $(ARGS)

compose-check: $(STAMP) $(COMPOSE_STAMP)
	@$(COMPOSE)/bin/python tests/live/compose_check.py $(ARGS)

wheel: $(STAMP)
	@$(RUN) -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

wheel-check: wheel
	@rm -rf $(WHEEL) && $(PYTHON) -m venv $(WHEEL)
	@$(WHEEL)/bin/python $(INSTALL) --require-hashes --requirement requirements.txt
	@$(WHEEL)/bin/python $(INSTALL) --no-deps dist/ledgerhouse-*.whl
	@$(RUN) tests/packaging/wheel_check.py $(WHEEL)/bin/python

$(COMPOSE_STAMP): deploy/requirements.txt $(STAMP)
	@echo "Installing Celery, for the compose file's workers, into $(COMPOSE) ..."
	@test -x $(COMPOSE)/bin/python || $(PYTHON) -m venv $(COMPOSE)
	@$(RUN) -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> $$($(COMPOSE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ledgerhouse.pth
	@$(COMPOSE)/bin/python $(INSTALL) --require-hashes --requirement $<
	@touch $@

$(BENCH_STAMP): tests/benchmarks/requirements.txt
	@echo "Installing dlt, to compare with, into $(BENCH) ..."
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python $(INSTALL) --requirement $<
	@touch $@

$(STAMP): requirements.txt requirements-stack.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: install Python 3.11 or newer, or say make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Ledgerhouse needs Python 3.11 to 3.14: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing the packages of requirements.txt and requirements-stack.txt into $(VENV), the first time for a minute or two ..."
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) $(INSTALL) --require-hashes --requirement requirements.txt --requirement requirements-stack.txt
	@$(RUN) $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): requirements-dev.txt $(STAMP)
	@echo "Installing the packages of requirements-dev.txt, for tests and lint, into $(VENV) ..."
	@$(RUN) $(INSTALL) --require-hashes --requirement requirements-dev.txt
	@touch $@

clean:
	@if [ -x $(RUN) ] && $(RUN) -c 'import psutil, dotenv' 2>/dev/null; then $(RUN) -m stack clean; else rm -rf var; fi
	@rm -rf $(VENV) $(BENCH) $(COMPOSE) $(WHEEL) dist .pytest_cache .ruff_cache .hypothesis sqlmesh_project/.cache sqlmesh_project/logs
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
