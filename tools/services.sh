#!/usr/bin/env bash
# Install redis-server and mariadbd if they are missing and this user may. Starts nothing:
# the tests and the demo start private ones on ports of their own.
set -euo pipefail
missing=()
command -v redis-server >/dev/null 2>&1 || missing+=(redis-server)
command -v mariadbd >/dev/null 2>&1 || [ -x /usr/sbin/mariadbd ] || missing+=(mariadb-server)
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing ${missing[*]} ..." >&2
  # A package's own service must not start: nothing but the tests may use these.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "warning: missing ${missing[*]}; tests that need them are skipped (and fail when CI is set)." >&2
  echo "         As root: apt-get install ${missing[*]}" >&2
fi
