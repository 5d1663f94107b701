#!/bin/sh
# ensure_browser.sh: makes sure that the tests of the chat page have a Chromium, Node.js, and the packages that drive it.
# What is there already is left as it is.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
tests=$root/tests/serve/browser

has_browser() {
    [ -n "${CHROMIUM:-}" ] && return
    for name in chromium google-chrome google-chrome-stable chromium-browser; do
        command -v "$name" >/dev/null && return
    done
    return 1
}
has_node() { command -v node >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'; }

missing=
has_browser || missing="$missing chromium"
has_node || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
# shellcheck disable=SC2086
[ -z "$missing" ] || "$root/scripts/apt_install.sh" $missing
if ! has_browser || ! has_node; then
    echo "The chat page's tests need a Chromium and Node.js 18 or newer; CHROMIUM=PATH names another browser." >&2
    exit 1
fi

# The lock file of what is installed lies beside it.
if ! cmp -s "$tests/package-lock.json" "$tests/node_modules/installed-lock.json"; then
    echo "Installing the browser tests' packages (npm)" >&2
    npm ci --prefix "$tests" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
    cp "$tests/package-lock.json" "$tests/node_modules/installed-lock.json"
fi
