#!/usr/bin/env bash
# Fetches and builds one thing that run.sh measures with, below build/peers; what is there is kept.
# The last line of a failure says why.
#   tests/peers/prepare.sh llama | ik | openvino | models
set -euo pipefail
cd "$(dirname "$0")/../.."

llama_version=0.3.36
ik_commit=8337e4cd3861406fc04e0854b1409cd1b027fbc9
openvino_version=2026.4.1.0
gguf_version=0.19.0
peers=$PWD/build/peers
tools=(llama-bench llama-batched-bench llama-quantize llama-server)

# built FOLDER: whether all of the tools are there.
built() {
  local tool
  for tool in "${tools[@]}"; do [ -x "$1/bin/$tool" ] || return 1; done
}

# build SOURCE FOLDER FLAG...: the tools of a tree of llama.cpp or ik_llama.cpp, for this CPU.
build() {
  cmake -G Ninja -S "$1" -B "$2" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
    -DLLAMA_BUILD_TESTS=OFF "${@:3}"
  cmake --build "$2" --target "${tools[@]}"
}

# venv PACKAGE==VERSION...: installs into build/peers/venv.
venv() {
  [ -x "$peers/venv/bin/python" ] || python3 -m venv "$peers/venv"
  "$peers/venv/bin/pip" install --quiet --disable-pip-version-check "$@"
}

llama() {
  tools+=(llama-perplexity)  # for divergence.py
  built "$peers/build" && return
  venv scikit-build-core
  "$peers/venv/bin/pip" download --quiet --no-deps --no-binary :all: --no-build-isolation \
    --dest "$peers" "llama-cpp-python==$llama_version"
  tar xzf "$peers/llama_cpp_python-$llama_version.tar.gz" -C "$peers"
  build "$peers/llama_cpp_python-$llama_version/vendor/llama.cpp" "$peers/build" \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
}

# Only the cache types that are measured are built. See ik_q4_1_tail.inc for what is repaired.
ik() {
  local tree=$peers/ik_llama.cpp kernels=ggml/src/iqk/iqk_gemm_legacy_quants.cpp
  built "$tree/build" && return
  rm -rf "$tree"
  if [ -n "${IK_LLAMA_SOURCE:-}" ]; then
    cp -r "$IK_LLAMA_SOURCE" "$tree"
  else
    git init --quiet "$tree"
    git -C "$tree" fetch --quiet --depth 1 https://github.com/ikawrakow/ik_llama.cpp "$ik_commit"
    git -C "$tree" checkout --quiet FETCH_HEAD
  fi
  sed -i -e '0,/^template .* void set_functions(/{/^template .* void set_functions(/e cat tests/peers/ik_q4_1_tail.inc' \
    -e '}' -e 's/FUNCTIONS(mul_mat_q8_1_r8_q8_2,/FUNCTIONS(mul_mat_q8_1_r8_q8_2_whole,/' "$tree/$kernels"
  sed -i '1i #include <cstdlib>\n#include <cstring>' "$tree/$kernels"
  grep -q '(mul_mat_q8_1_r8_q8_2_whole,' "$tree/$kernels" || { echo "the Q4_1 kernel has moved"; return 1; }
  build "$tree" "$tree/build" -DGGML_IQK_FA_ALL_QUANTS=OFF
}

openvino() { venv "openvino-genai==$openvino_version"; }

# The same weights in Q4_0, and a 1B shape with seeded random ones.
models() {
  local folder=${KVASIR_MODEL_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvasir/models}
  local real=$folder/SmolLM2-135M-Instruct.Q4_1.gguf
  if [ ! -f "$peers/random-1b-q4_0.gguf" ]; then
    venv "gguf==$gguf_version"
    "$peers/venv/bin/python" tests/peers/random_model.py "$real" "$peers/random.part"
    mv "$peers/random.part" "$peers/random-1b-q4_0.gguf"
  fi
  if [ ! -f "$peers/smollm2-q4_0.gguf" ]; then
    "$peers/build/bin/llama-quantize" --allow-requantize "$real" "$peers/q4_0.part" Q4_0
    mv "$peers/q4_0.part" "$peers/smollm2-q4_0.gguf"
  fi
}

case "${1:-}" in
  llama | ik | openvino | models) "$1" ;;
  *) echo "prepare.sh: llama, ik, openvino or models, not '${1:-}'" >&2; exit 2 ;;
esac
