#!/bin/sh
# Installs what the browser tests need: Chromium with its driver, and npm for the SMART client library.
set -eu
missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v chromedriver >/dev/null 2>&1 || missing="$missing chromium-driver"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
if [ -n "$missing" ]; then
    echo "Installing$missing from Debian's packages ..."
    apt-get update -qq
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $missing
fi
(cd tests/browser && npm ci --silent --no-audit --no-fund)
