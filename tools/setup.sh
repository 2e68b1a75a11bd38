#!/usr/bin/env bash
# Install uv if it is missing and make the locked environment in the folder given.
# The lock names no package index: versions and hashes only.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
export PIP_DISABLE_PIP_VERSION_CHECK=1
PATH="$HOME/.local/bin:$PATH"
if ! command -v uv >/dev/null 2>&1; then
  echo "installing uv ..." >&2
  own="$HOME/.local/share/stockray-uv"
  mkdir -p "$HOME/.local/bin"
  # Some distributions ship Python without venv, others without pip: either will do.
  if python3 -m venv "$own" >/dev/null 2>&1; then
    "$own/bin/pip" install -q uv
    ln -sf "$own/bin/uv" "$HOME/.local/bin/uv"
  elif ! python3 -m pip install -q --user uv && ! python3 -m pip install -q --user --break-system-packages uv; then
    echo "error: cannot install uv: Python has neither venv nor pip." >&2
    echo "       As root: apt-get install python3-venv; or install uv yourself." >&2
    exit 1
  fi
fi
[ -x "$venv/bin/python" ] || uv venv -q --no-project -p ">=3.11,<3.14" "$venv"
export VIRTUAL_ENV="$PWD/$venv"
case $venv in /*) export VIRTUAL_ENV="$venv" ;; esac
uv pip sync -q --require-hashes requirements.lock
uv pip install -q --no-deps -e protos -e clients -e .
touch "$venv/.synced"
