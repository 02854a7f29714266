#!/bin/sh
# Installs what the benchmarks load servers with (wrk) and hold them back with (cpulimit).
set -eu
sh scripts/packages.sh load
