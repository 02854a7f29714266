#!/bin/sh
# Unpacks Debian's nginx and Caddy into .cache/proxies for the tests of deploy/, unless the machine has them.
# Installing the packages would start both servers on the machine's own ports.
set -eu
sh scripts/packages.sh deployment
PATH="$PATH:/usr/sbin:/sbin:$PWD/.cache/proxies/usr/sbin:$PWD/.cache/proxies/usr/bin"

missing=""
for name in nginx caddy; do
    command -v "$name" >/dev/null 2>&1 || missing="$missing $name"
done
[ -n "$missing" ] || exit 0

mkdir -p .cache/proxies/packages
# shellcheck disable=SC2086
if ! (cd .cache/proxies/packages && apt-get download -qq $missing >/dev/null 2>&1); then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    (cd .cache/proxies/packages && apt-get download -qq $missing)
fi
for package in .cache/proxies/packages/*.deb; do
    dpkg-deb --extract "$package" .cache/proxies
done
rm -r .cache/proxies/packages
for name in $missing; do
    "$name" "$([ "$name" = nginx ] && echo -v || echo version)" # it runs with this machine's libraries
done
