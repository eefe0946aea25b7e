#!/bin/sh
# Installs what the tests drive and pip does not have: a browser for the pages, promtool for the alert rules, ip for
# two hosts on one machine.
# usage: install_system.sh DIRECTORY   (where promtool goes)
set -e
have() { command -v "$1" >/dev/null; }
have chromium && have chromedriver && have ip && { have promtool || [ -x "$1/promtool" ]; } && exit 0
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
if ! have apt-get; then
    echo "The tests need chromium, chromedriver, promtool and ip (iproute2): install them, then run make test again." >&2
    exit 1
fi
$as_root apt-get update -qq
have chromium && have chromedriver || DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq chromium chromium-driver >/dev/null
have ip || DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq iproute2 >/dev/null
have promtool || {
    folder=$(mktemp -d)
    (cd "$folder" && apt-get download -qq prometheus && dpkg -x prometheus_*.deb .)
    cp "$folder/usr/bin/promtool" "$1/"
    rm -rf "$folder"
}
