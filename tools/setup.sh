#!/usr/bin/env bash
# Install uv if it is missing and make the locked environment in the folder given.
# The lock names no package index: versions and hashes only.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
if ! command -v uv >/dev/null 2>&1; then
  if [ ! -x "$HOME/.local/bin/uv" ]; then
    echo "installing uv ..." >&2
    python3 -m venv "$HOME/.local/share/stockray-uv"
    "$HOME/.local/share/stockray-uv/bin/pip" install -q uv
    mkdir -p "$HOME/.local/bin"
    ln -sf "$HOME/.local/share/stockray-uv/bin/uv" "$HOME/.local/bin/uv"
  fi
  PATH="$HOME/.local/bin:$PATH"
fi
[ -x "$venv/bin/python" ] || uv venv -q --no-project -p ">=3.11,<3.14" "$venv"
export VIRTUAL_ENV="$PWD/$venv"
case $venv in /*) export VIRTUAL_ENV="$venv" ;; esac
uv pip sync -q --require-hashes requirements.lock
uv pip install -q --no-deps -e protos -e clients -e .
touch "$venv/.synced"
