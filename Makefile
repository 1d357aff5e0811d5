# make demo   two years of books from the sandbox in one go, with a report at the end
# make up     the same services kept running, until Ctrl-C
# make ui   the books of the last demo, in Airflow's UI, until Ctrl-C
# make test   the tests
# make plan ARGS="dev --include-unmodified"   sqlmesh plan, with the stack up or down
# make models   lint and test the models; ARGS="table_diff prod:dev …": sqlmesh on the warehouse
# make airflow ARGS="dags backfill -s 2026-01-01 -e 2026-01-31 sync"   a command of the running stack
# make shell  a shell in which `airflow …` is that of the running stack
# make replay the warehouse again from its landing, without a call
# make torture N=20   random lives with faults and kill -9; ARGS=--curated: the models and books too
# make bench  measures it all and writes tests/benchmarks/RESULTS.md; ARGS=load: only that one
# make reference   writes docs/reference.md from the code
# make compose-check   docker-compose.yaml's services as processes, end to end, without Docker
# make clean  removes what these made: var/, .venv, .venv-bench, .venv-compose and caches

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.requirements
RUN := $(VENV)/bin/python
BENCH := .venv-bench
BENCH_STAMP := $(BENCH)/.requirements
COMPOSE := .venv-compose
COMPOSE_STAMP := $(COMPOSE)/.requirements

.PHONY: demo up ui test plan models replay airflow shell torture bench reference compose-check clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	@$(RUN) -m stack demo

up: $(STAMP)
	@$(RUN) -m stack up

ui: $(STAMP)
	@$(RUN) -m stack ui

test: $(STAMP)
	@$(RUN) -m pytest tests -n 2 --dist loadfile

plan: $(STAMP)
	@$(RUN) -m stack plan $(ARGS)

models: $(STAMP)
	@$(RUN) -m stack models $(ARGS)

replay: $(STAMP)
	@$(RUN) -m stack replay

airflow: $(STAMP)
	@$(RUN) -m stack airflow $(ARGS)

shell: $(STAMP)
	@$(RUN) -m stack shell

torture: $(STAMP)
	@$(RUN) tests/laws/torture.py --lives $(or $(N),20) $(ARGS)

bench: $(STAMP) $(BENCH_STAMP)
	@$(RUN) -m tests.benchmarks.run $(ARGS)

reference: $(STAMP)
	@$(RUN) -m docs.make_reference

compose-check: $(STAMP) $(COMPOSE_STAMP)
	@$(COMPOSE)/bin/python tests/live/compose_check.py $(ARGS)

$(COMPOSE_STAMP): deploy/requirements.txt $(STAMP)
	@echo "Installing Celery, for the compose file's workers, into $(COMPOSE) ..."
	@test -x $(COMPOSE)/bin/python || $(PYTHON) -m venv $(COMPOSE)
	@$(RUN) -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> $$($(COMPOSE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ledgerhouse.pth
	@$(COMPOSE)/bin/python -m pip install --quiet --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(BENCH_STAMP): tests/benchmarks/requirements.txt
	@echo "Installing dlt, to compare with, into $(BENCH) ..."
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(STAMP): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: install Python 3.11 or newer, or say make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Ledgerhouse needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing the packages of requirements.txt into $(VENV), the first time for a minute or two ..."
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --quiet --disable-pip-version-check --requirement requirements.txt
	@$(RUN) -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -rf ledgerhouse.egg-info  # a second description of the package on PYTHONPATH
	@touch $@

clean:
	@if [ -x $(RUN) ] && $(RUN) -c 'import psutil, dotenv' 2>/dev/null; then $(RUN) -m stack clean; else rm -rf var; fi
	@rm -rf $(VENV) $(BENCH) $(COMPOSE) .pytest_cache .ruff_cache .hypothesis *.egg-info sqlmesh_project/.cache sqlmesh_project/logs
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
