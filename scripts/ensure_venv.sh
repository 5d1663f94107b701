#!/bin/sh
# ensure_venv.sh PYTHON FOLDER: makes a virtual environment, with Debian's missing half of `venv` if need be.
set -eu
python=$1
folder=$2

if ! command -v "$python" >/dev/null; then
    "$(dirname "$0")/apt_install.sh" python3 python3-venv
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$(dirname "$0")/apt_install.sh" python3-venv
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed, and $python is older; name another one: make PYTHON=python3.12 ..." >&2
    exit 1
fi

echo "Making the virtual environment $folder" >&2
rm -rf "$folder"
"$python" -m venv "$folder"
