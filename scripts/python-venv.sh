#!/bin/sh
# Makes .venv with Python 3.11 or later.
set -eu
PYTHON=${PYTHON:-python3}
PYTHON="$PYTHON" sh scripts/packages.sh venv
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed." >&2; exit 1; }
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
