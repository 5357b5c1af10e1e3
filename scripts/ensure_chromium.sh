#!/bin/sh
# Finds a Chromium for the browser tests, and on Debian installs one. Never fails: without one the
# browser tests skip and say so.
for name in "${CHROMIUM:-chromium}" chromium-browser google-chrome-stable google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
say() { echo "[setup] $*"; }
if [ "$(uname -s)" = Linux ] && grep -qs '^ID=debian' /etc/os-release; then
    if [ "$(id -u)" = 0 ]; then as_root=""; else as_root="sudo -n"; fi
    if $as_root true 2>/dev/null; then
        say "installing Debian's chromium for the browser tests"
        export DEBIAN_FRONTEND=noninteractive
        install="$as_root apt-get install -y -q --no-install-recommends chromium fonts-noto-cjk"
        log=$(mktemp)
        { $install || { $as_root apt-get update -q && $install; }; } >"$log" 2>&1 </dev/null \
            && { rm -f "$log"; exit 0; }
        tail -n 5 "$log"; rm -f "$log"
    fi
fi
say "no Chromium: the browser tests will be skipped (\`make browser\` fetches Playwright's own)"
exit 0
