#!/bin/sh
# Installs what the MongoDB tests need: libcurl4 for mongod, and mongod itself into .cache (see tests/mongo/mongod.py).
set -eu
sh scripts/packages.sh mongod
.venv/bin/python -c "from tests.mongo.mongod import installed; installed()"
