#!/bin/sh
# Installs what the browser tests need: Chromium with its driver, and npm for the SMART client library.
set -eu
sh scripts/packages.sh browser
(cd tests/browser && npm ci --silent --no-audit --no-fund)
