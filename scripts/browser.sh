#!/bin/sh
# Installs what the browser tests need: Chromium with its driver, npm for the client libraries, and Firefox and WebKit where they are to be had.
set -eu
sh scripts/packages.sh browser
for engine in firefox webkit; do # not every system has these packages; the tests that need them are skipped then
    sh scripts/packages.sh "$engine" || echo "Tests in $engine will be skipped." >&2
done
(cd tests/browser && npm ci --silent --no-audit --no-fund)
