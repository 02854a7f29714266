#!/bin/sh
# Installs the Debian packages of the groups named that are missing: venv, browser, firefox, webkit, mongod, deployment, java, load.
# As root, or else with sudo. Without either, it prints the packages that are missing and fails; if none is missing, it does nothing.
set -eu
PATH="$PATH:/usr/sbin:/sbin" # of ldconfig, for users other than root

packages() {
    case $1 in
        venv) echo python3 python3-venv ;;                 # the server
        browser) echo chromium chromium-driver npm curl ;; # tests in a browser, and of the commands in the guides
        firefox) echo firefox-esr ;;                       # the same pages in other engines
        webkit) echo webkit2gtk-driver xvfb ;;
        mongod) echo libcurl4 ;;                           # tests on MongoDB
        deployment) echo systemd ;;                        # tests of deploy/
        java) echo default-jdk-headless maven ;;           # tests of clients in Java, for make test-all
        load) echo wrk cpulimit ;;                         # benchmarks
        *) echo "packages.sh: no group is named $1" >&2; exit 2 ;;
    esac
}

present() {
    case $1 in
        python3) command -v "${PYTHON:-python3}" ;;
        python3-venv) "${PYTHON:-python3}" -c 'import ensurepip, venv' ;;
        chromium-driver) command -v chromedriver ;;
        firefox-esr) command -v firefox-esr || command -v firefox ;;
        webkit2gtk-driver) command -v WebKitWebDriver ;;
        xvfb) command -v Xvfb ;;
        systemd) command -v systemd-analyze ;;
        default-jdk-headless) command -v javac ;;
        maven) command -v mvn ;;
        libcurl4) ldconfig -p | grep 'libcurl\.so\.4 ' ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    sudo=""
    if [ "$(id -u)" -ne 0 ]; then
        sudo=$(command -v sudo) || return 1
    fi
    echo "Installing Debian packages: $*"
    $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "$@"
}

missing=""
for group in "$@"; do
    wanted=$(packages "$group")
    for package in $wanted; do
        present "$package" || missing="$missing $package"
    done
done
[ -n "$missing" ] || exit 0

# shellcheck disable=SC2086
install $missing && exit 0
echo "Debian packages are missing, and this user cannot install them. Install them as root, then run the same command again:" >&2
echo "    apt-get install$missing" >&2
exit 1
