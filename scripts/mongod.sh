#!/bin/sh
# Installs what the MongoDB tests need: Debian's libcurl4 for mongod, and mongod itself into .cache (see tests/mongo/mongod.py).
set -eu
if ! ldconfig -p | grep -q 'libcurl\.so\.4 '; then
    echo "Installing libcurl4 from Debian's packages ..."
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends libcurl4
fi
.venv/bin/python -c "from tests.mongo.mongod import installed; installed()"
