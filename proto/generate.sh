#!/bin/sh
# Compiles every .proto into proto/gen (or the directory given), which is replaced once everything has compiled.
# Needs grpcio-tools and mypy-protobuf, whose plugins lie beside the interpreter in PYTHON.
set -eu
out=$(realpath -m "${1:-$(dirname "$0")/gen}")
python=$(command -v "${PYTHON:-python3}")
PATH=$(dirname "$python"):$PATH
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck disable=SC2046
"$python" -m grpc_tools.protoc -I . --python_out="$scratch" --grpc_python_out="$scratch" --mypy_out="quiet:$scratch" \
  --mypy_grpc_out="quiet:$scratch" $(find agentfactory -name '*.proto' | sort)
find "$scratch/agentfactory" -type d -exec touch {}/__init__.py \;
mkdir -p "$out"
rm -rf "$out/agentfactory"
cp -R "$scratch/agentfactory" "$out/agentfactory"
