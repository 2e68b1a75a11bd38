#!/usr/bin/env bash
# Install the programs named if they are missing and this user may; all that tests use if none is.
# Starts nothing: the tests, the demo and the benchmark start private ones on ports of their own.
set -euo pipefail
[ $# -gt 0 ] || set -- redis-server mariadbd h2load openssl
missing=()
for program in "$@"; do
  command -v "$program" >/dev/null 2>&1 || [ -x "/usr/sbin/$program" ] && continue
  case $program in
    mariadbd) missing+=(mariadb-server) ;;
    h2load) missing+=(nghttp2-client) ;;
    *) missing+=("$program") ;;
  esac
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing ${missing[*]} ..." >&2
  # A package's own service must not start: nothing but the tests may use these.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "warning: missing ${missing[*]}; what needs them is skipped (tests fail when CI is set)." >&2
  echo "         As root: apt-get install ${missing[*]}" >&2
fi
