#!/bin/sh
# Compiles every .proto into proto/gen (or the directory given). Needs grpcio-tools, mypy-protobuf and mypy's gRPC stub generator.
set -eu
cd "$(dirname "$0")"
out=${1:-gen}
python=${PYTHON:-python3}
rm -rf "$out"; mkdir -p "$out"
# shellcheck disable=SC2046
"$python" -m grpc_tools.protoc -I . --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
  $(find agentfactory -name '*.proto' | sort)
find "$out/agentfactory" -type d -exec touch {}/__init__.py \;
