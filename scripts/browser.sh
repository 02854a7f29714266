#!/bin/sh
# Installs what the browser tests need: Chromium with its driver, Firefox, WebKit, and npm for the client libraries.
set -eu
sh scripts/packages.sh browser firefox webkit
(cd tests/browser && npm ci --silent --no-audit --no-fund)
