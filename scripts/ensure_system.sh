#!/bin/sh
# What the tests take from the system: a Chromium for the page's, fonts for the training's, libfaketime
# to move a server's clock, Prometheus and Alertmanager's tools to judge alerts beside us and ask the dashboards' queries. On Debian whatever is missing is installed. Never fails:
# tests without their part skip and say so.
as_root=""
can_install() {
    [ "$(uname -s)" = Linux ] && grep -qs '^ID=debian' /etc/os-release || return 1
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    $as_root true 2>/dev/null
}
say() { echo "[setup] $*"; }
install() {
    export DEBIAN_FRONTEND=noninteractive
    get="$as_root apt-get install -y -q --no-install-recommends"
    log=$(mktemp)
    # shellcheck disable=SC2086
    { $get "$@" || { $as_root apt-get update -q && $get "$@"; }; } >"$log" 2>&1 </dev/null \
        || tail -n 5 "$log"
    rm -f "$log"
}

chromium=""
for name in "${CHROMIUM:-chromium}" chromium-browser google-chrome-stable google-chrome; do
    command -v "$name" >/dev/null 2>&1 && chromium=$name && break
done
fonts=$(.venv/bin/python -m training.fonts)
clock=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1 2>/dev/null | head -n 1)
judges=1
for name in prometheus promtool amtool; do
    command -v "$name" >/dev/null 2>&1 || [ -x ".venv/bin/$name" ] || judges=""
done
fetch_judges() { # out of their packages, which would start servers where they are installed
    say "fetching prometheus, promtool and amtool from Debian for the tests of alerts and dashboards"
    folder=$(mktemp -d)
    (cd "$folder" && apt-get download -q prometheus prometheus-alertmanager \
        && for one in *.deb; do dpkg-deb -x "$one" .; done) >"$folder/log" 2>&1 \
        && (cd "$folder/usr/bin" && cp prometheus promtool amtool "$here/.venv/bin/") || tail -n 5 "$folder/log"
    rm -rf "$folder"
}
here=$(pwd)
[ -n "$chromium" ] && [ -n "$judges" ] && [ -z "$fonts" ] && [ -n "$clock" ] && exit 0
if can_install; then
    [ -n "$chromium" ] || { say "installing Debian's chromium for the browser tests"; install chromium; }
    [ -n "$clock" ] || { say "installing Debian's libfaketime for the tests under faults"; install libfaketime; }
    [ -n "$judges" ] || fetch_judges
    # shellcheck disable=SC2086
    [ -z "$fonts" ] || { say "installing the fonts that training draws with"; install $fonts; }
else
    [ -n "$chromium" ] || say "no Chromium: the browser tests will be skipped (\`make browser\` fetches Playwright's own)"
    [ -n "$clock" ] || say "no libfaketime: the clock's jumps will be left out of the faults"
    [ -n "$judges" ] || say "no prometheus, promtool or amtool: alerts and dashboards are not tried with them"
    [ -z "$fonts" ] || say "fonts are missing, the tests that draw will be skipped: $fonts"
fi
exit 0
