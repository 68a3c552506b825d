# Everything here is short for one or two commands; none of it is needed to use Storymill.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test check ui down

run: .venv/installed            ## the whole chain on this machine, with the built-in storyteller
	$(BIN)/storymill run

test: .venv/installed           ## the unit suite, then what needs a Prefect server or the whole chain
	$(BIN)/pytest -q -m "not server and not chain and not shell"
	$(BIN)/pytest -q -m "server or chain or shell"

check: .venv/installed          ## what a commit must pass
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) test

ui: .venv/installed             ## Prefect server with its page, the schedules of prefect.yaml, a worker
	$(BIN)/storymill ui

down:                           ## stop the Prefect server
	$(BIN)/storymill down

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $@
