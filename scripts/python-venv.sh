#!/bin/sh
# Makes .venv with Python 3.11 or later, installing Debian's python3-venv where the standard library lacks it.
set -eu
PYTHON=${PYTHON:-python3}
if ! command -v "$PYTHON" >/dev/null 2>&1 || ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "Installing Python's venv from Debian's packages ..."
    apt-get update -qq
    apt-get install -y -qq python3 python3-venv
fi
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed." >&2; exit 1; }
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
