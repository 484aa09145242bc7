#!/usr/bin/env bash
# Measures Kvasir beside llama.cpp in one run on this machine, on the default model:
# prefill of 512 tokens, decode at short context and at 2,048. Prints a table with ratios and
# writes build/peers.json. llama.cpp comes as source from the PyPI package llama-cpp-python and is
# built natively below build/peers; nothing of it is kept in the repository.
#   tests/peers/run.sh [--threads N] [--rounds N]
# Let nothing else run meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=0.3.36
peers=$PWD/build/peers
bench=$peers/build/bin/llama-bench
mkdir -p "$peers"

if [ ! -x "$bench" ]; then
  echo "Building llama.cpp from llama-cpp-python $version (minutes); log: build/peers/build.log"
  {
    python3 -m venv "$peers/venv"
    "$peers/venv/bin/pip" install --quiet scikit-build-core
    "$peers/venv/bin/pip" download --quiet --no-deps --no-binary :all: --no-build-isolation \
      --dest "$peers" "llama-cpp-python==$version"
    tar xzf "$peers"/llama_cpp_python-*.tar.gz -C "$peers"
    cmake -G Ninja -S "$peers"/llama_cpp_python-*/vendor/llama.cpp -B "$peers/build" \
      -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF \
      -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF
    cmake --build "$peers/build" --target llama-bench
  } >"$peers/build.log" 2>&1 || { tail -n 20 "$peers/build.log" >&2; exit 1; }
fi
if [ ! -x build/release/kvasir ]; then
  cmake --preset release >"$peers/kvasir.log" 2>&1
  cmake --build build/release --target kvasir >>"$peers/kvasir.log" 2>&1
fi
examples/setup/models.sh smollm2
exec python3 tests/peers/compare.py --llama-bench "$bench" --kvasir build/release/kvasir "$@"
