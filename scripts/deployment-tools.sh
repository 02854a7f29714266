#!/bin/sh
# Unpacks Debian's nginx, Caddy and promtool into .cache/deployment for the tests of deploy/, unless the machine has them.
# Installing the packages would start servers on the machine's own ports.
set -eu
sh scripts/packages.sh deployment
folder=.cache/deployment
PATH="$PATH:/usr/sbin:/sbin:$PWD/$folder/usr/sbin:$PWD/$folder/usr/bin"

package_of() {
    case $1 in
        promtool) echo prometheus ;;
        *) echo "$1" ;;
    esac
}

missing=""
packages=""
for name in nginx caddy promtool; do
    command -v "$name" >/dev/null 2>&1 && continue
    missing="$missing $name"
    packages="$packages $(package_of "$name")"
done
[ -n "$missing" ] || exit 0

mkdir -p "$folder/packages"
# shellcheck disable=SC2086
if ! (cd "$folder/packages" && apt-get download -qq $packages >/dev/null 2>&1); then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    (cd "$folder/packages" && apt-get download -qq $packages)
fi
for package in "$folder"/packages/*.deb; do
    dpkg-deb --extract "$package" "$folder"
done
rm -r "$folder/packages"
for name in $missing; do
    case $name in
        nginx) nginx -v ;; # it runs with this machine's libraries
        caddy) caddy version ;;
        promtool) promtool --version ;;
    esac
done
