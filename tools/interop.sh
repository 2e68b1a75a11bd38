#!/usr/bin/env bash
# Build other people's clients, and ours of other languages, for tests/interop: `go`, `js`, `java`
# (all three without a word), into .cache/interop. Versions are pinned beside the sources, and
# generated code stays in the cache. Does nothing when nothing changed. Needs go; npm; mvn and java.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$HOME/.local/bin:$PWD/.venv/bin:$PATH"
cache=$PWD/.cache/interop
source=$PWD/tests/interop

# The generators of tools/proto.sh, with a plugin of Go's.
protoc_go() {
  uv run -q --no-project --python ">=3.11,<3.14" --with grpcio-tools==1.76.0 --with setuptools==80.9.0 \
    python -m grpc_tools.protoc -Iprotos --plugin="$cache/bin/protoc-gen-go" \
    --plugin="$cache/bin/protoc-gen-go-grpc" --go_out="$1" --go-grpc_out="$1" \
    protos/stockray_proto/v1/*.proto
}

build_go() {
  local stubs=$cache/go/stockray.io/gen
  mkdir -p "$cache/bin" "$stubs"
  # The stubs are a module of their own, so that go.mod can name them before they are generated.
  printf 'module stockray.io/gen\n\ngo 1.26.0\n' >"$stubs/go.mod"
  cd "$source/go"
  go build -o "$cache/bin/" google.golang.org/protobuf/cmd/protoc-gen-go \
    google.golang.org/grpc/cmd/protoc-gen-go-grpc
  (cd ../../.. && protoc_go "$cache/go")
  go build -o "$cache/bin/go-interop-client" google.golang.org/grpc/interop/client
  go build -o "$cache/bin/" github.com/summerwind/h2spec/cmd/h2spec ./sale
}

build_js() {
  mkdir -p "$cache/js"
  cp "$source/js/package.json" "$source/js/package-lock.json" "$cache/js/"
  cd "$cache/js"
  npm ci --silent --no-audit --no-fund
}

build_java() {
  cd "$source/java"
  mvn -q -B -Dinterop.cache="$cache" compile
}

# Locked, since two runs of the tests may need it at once; a stamp says of which sources it is.
build() {
  local stamp=$cache/$1.stamp now
  now=$(cat tools/interop.sh protos/stockray_proto/v1/*.proto \
    $(find "$source/$1" -type f | LC_ALL=C sort) | sha256sum)
  exec 9>"$cache/$1.lock"
  flock 9
  [ "$(cat "$stamp" 2>/dev/null)" = "$now" ] && return
  echo "building the $1 clients of tests/interop ..." >&2
  ("build_$1")
  echo "$now" >"$stamp"
}

mkdir -p "$cache"
for language in "${@:-go js java}"; do
  for one in $language; do
    case $one in
      go | js | java) build "$one" ;;
      *) echo "usage: tools/interop.sh [go] [js] [java]" >&2; exit 2 ;;
    esac
  done
done
