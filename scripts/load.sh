#!/bin/sh
# Installs what the benchmarks load servers with (wrk) and hold them back with (cpulimit).
set -eu
command -v wrk >/dev/null && command -v cpulimit >/dev/null || { apt-get update -qq && apt-get install -y -qq wrk cpulimit; }
