#!/usr/bin/env bash
# Measures Kvasir beside llama.cpp, ik_llama.cpp and OpenVINO GenAI in one run on this machine:
# prints a table with ratios and bars and writes build/peers.json. Everything of theirs is fetched
# and built below build/peers; what cannot be had here is a row that says why. See compare.py.
#   tests/peers/run.sh [--ik-source DIR] [--threads N] [--rounds N] [--only PART,...] [--kvasir FILE]
# --ik-source  a tree of ik_llama.cpp (or IK_LLAMA_SOURCE), for machines that do not reach GitHub
# Let nothing else run meanwhile.
set -euo pipefail

kvasir=
arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --ik-source) IK_LLAMA_SOURCE=${2:?--ik-source needs a folder}; shift ;;
    --kvasir) kvasir=$(realpath "${2:?--kvasir needs a file}"); shift ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
[ -z "${IK_LLAMA_SOURCE:-}" ] || export IK_LLAMA_SOURCE=$(realpath "$IK_LLAMA_SOURCE")
cd "$(dirname "$0")/../.."
kvasir=${kvasir:-build/release/kvasir}

mkdir -p build/peers
examples/setup/models.sh smollm2
if [ ! -x "$kvasir" ]; then
  echo "Building Kvasir; log: build/peers/kvasir.log"
  { cmake --preset release && cmake --build build/release --target kvasir; } >build/peers/kvasir.log 2>&1
fi
for what in llama ik openvino models; do
  echo "Preparing $what; log: build/peers/$what.log"
  rm -f "build/peers/$what.skipped"
  if ! tests/peers/prepare.sh "$what" >"build/peers/$what.log" 2>&1; then
    tail -n 1 "build/peers/$what.log" | cut -c 1-200 | tee "build/peers/$what.skipped" >&2
  fi
done
exec python3 tests/peers/compare.py --kvasir "$kvasir" "${arguments[@]}"
