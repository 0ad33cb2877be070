#!/bin/sh
# Writes the API page to the file given.
set -eu
out=$(realpath -m "$1")
cd "$(dirname "$0")"
python=${PYTHON:-python3}
set_file=$(mktemp)
trap 'rm -f "$set_file"' EXIT
# shellcheck disable=SC2046
"$python" -m grpc_tools.protoc -I . --include_source_info --descriptor_set_out="$set_file" $(find agentfactory -name '*.proto' | sort)
"$python" describe.py "$set_file" "$out"
