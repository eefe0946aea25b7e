#!/bin/sh
# Installs the browser that the tests of the pages drive.
set -e
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
if ! command -v apt-get >/dev/null; then
    echo "The page tests need chromium and chromedriver: install them, then run make test again." >&2
    exit 1
fi
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq chromium chromium-driver >/dev/null
