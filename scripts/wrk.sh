#!/bin/sh
# Installs wrk, the load generator of the benchmarks.
set -eu
command -v wrk >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq wrk; }
