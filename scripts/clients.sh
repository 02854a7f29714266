#!/bin/sh
# Installs the FHIR clients that tests/clients runs: those for Python into .cache/clients, apart from .venv, and those for Node.js.
set -eu
sh scripts/packages.sh browser
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --upgrade \
    --target .cache/clients -r tests/clients/python/requirements.txt
(cd tests/clients/node && npm ci --silent --no-audit --no-fund)
