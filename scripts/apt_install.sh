#!/bin/sh
# apt_install.sh PACKAGE...: installs Debian packages, as root or through sudo. Quiet unless it fails.
set -eu

if ! command -v apt-get >/dev/null; then
    echo "Please install the equivalent of these Debian packages with your system's package manager: $*" >&2
    exit 1
fi

as_root=
if [ "$(id -u)" -ne 0 ]; then
    as_root=sudo
    # Without a terminal, sudo must not wait for a password.
    [ -t 0 ] || as_root="sudo -n"
    if ! command -v sudo >/dev/null; then
        echo "Root rights are needed and there is no sudo; as root, run: apt-get install $*" >&2
        exit 1
    fi
fi

echo "Installing $* (apt-get)" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! {
    $as_root apt-get update &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
} >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "Installing failed (see above); as root, run: apt-get install $*" >&2
    exit 1
fi
