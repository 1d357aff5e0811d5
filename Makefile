# make demo   two years of books from the sandbox in one go, with a report at the end
# make up     the same services kept running, until Ctrl-C
# make test   the tests
# make plan ARGS="dev --include-unmodified"   sqlmesh plan, with the stack up or down
# make clean  removes what these made: var/, .venv and caches

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.requirements
RUN := $(VENV)/bin/python

.PHONY: demo up test plan clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	@$(RUN) -m stack demo

up: $(STAMP)
	@$(RUN) -m stack up

test: $(STAMP)
	@$(RUN) -m pytest tests

plan: $(STAMP)
	@$(RUN) -m stack plan $(ARGS)

$(STAMP): requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: install Python 3.11 or newer, or say make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Ledgerhouse needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing the packages of requirements.txt into $(VENV), the first time for a minute or two ..."
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

clean:
	@if [ -x $(RUN) ] && $(RUN) -c 'import psutil, dotenv' 2>/dev/null; then $(RUN) -m stack clean; else rm -rf var; fi
	@rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis sqlmesh_project/.cache sqlmesh_project/logs
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
