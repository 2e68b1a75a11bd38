#!/usr/bin/env bash
# `write` regenerates the code beside the .proto files; `check` lints them and fails on drift.
# The generator is older than the runtime on purpose: its code loads on every newer runtime.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$HOME/.local/bin:$PWD/.venv/bin:$PATH"
generate() {
  uv run -q --no-project --python ">=3.11,<3.14" --with grpcio-tools==1.76.0 --with setuptools==80.9.0 \
    --with mypy-protobuf==5.1.0 --with protobuf==6.33.0 python -m grpc_tools.protoc -Iprotos --python_out="$1" \
    --grpc_python_out="$1" --mypy_out=quiet:"$1" --mypy_grpc_out=quiet:"$1" \
    protos/stockray_proto/v1/*.proto
}
case ${1:-check} in
  write) generate protos ;;
  check)
    (cd protos && buf lint)
    temporary=$(mktemp -d)
    trap 'rm -rf "$temporary"' EXIT
    generate "$temporary"
    for file in "$temporary"/stockray_proto/v1/*; do
      cmp -s "$file" "protos/stockray_proto/v1/$(basename "$file")" || {
        echo "proto drift: $(basename "$file") is not what its .proto says; run: make proto" >&2
        exit 1
      }
    done
    for file in protos/stockray_proto/v1/*_pb2*.py*; do
      [ -e "$temporary/stockray_proto/v1/$(basename "$file")" ] || {
        echo "proto drift: $(basename "$file") has no .proto any more; remove it" >&2
        exit 1
      }
    done ;;
  *) echo "usage: tools/proto.sh write|check" >&2; exit 2 ;;
esac
