#!/usr/bin/env bash
# Tests and measures the CUDA backend on the card of this machine, with nvcc, cmake and g++ alone.
#   tests/gpu.sh [--quick] [--model GGUF] [--out FOLDER] [--without-card]
# --quick         small shapes only: that everything runs, no figures worth keeping
# --model         also compares greedy text of CPU and card on this SmolLM2 (tests/golden's prompts)
# --out           where gpu.json, gpu.txt and logs go (default build/gpu-results, or $OUT if set)
# --without-card  as on a machine that has none
# Order: build, conformance, compute-sanitizer, table. Each comes whatever the one before it said;
# the exit status is 0 if all of them went well. Without a card: says so, 0.
# GPU_STEPS="build conformance sanitizer bench" names fewer, where time on a card is short.
set -uo pipefail
cd "$(dirname "$0")/.."

quick=0 model= out=${OUT:-build/gpu-results} card=1
steps=${GPU_STEPS:-build conformance sanitizer bench}
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) quick=1 ;;
    --without-card) card=0 ;;
    --model) model=${2:?--model needs a file}; shift ;;
    --out) out=${2:?--out needs a folder}; shift ;;
    *) echo "gpu.sh: unknown argument '$1' (see its head)" >&2; exit 2 ;;
  esac
  shift
done

has_card() {
  [ $card -eq 1 ] && { nvidia-smi -L 2>/dev/null | grep -q GPU || [ -e /dev/nvidia0 ]; }
}
if ! has_card; then
  echo "no CUDA device: skipped"
  exit 0
fi

export PATH="$PATH:/usr/local/cuda/bin"
for tool in nvcc cmake g++; do
  command -v $tool >/dev/null || { echo "gpu.sh needs $tool on the path" >&2; exit 1; }
done
mkdir -p "$out"
build=build/gpu
failed=()
wanted() { case " $steps " in *" $1 "*) return 0 ;; esac; return 1; }
say() { printf '\n== %s (%d s)\n' "$*" $SECONDS; }

if wanted build; then
  say "Build"
  generator=()
  command -v ninja >/dev/null && generator=(-G Ninja)
  cmake -S . -B $build "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DKVASIR_CUDA=ON \
    -DKVASIR_SERVICE=OFF -DKVASIR_TOKENIZER=OFF -DKVASIR_TESTS=OFF -DKVASIR_GPU_PROGRAMS=ON \
    >"$out/configure.log" 2>&1 || { tail -n 30 "$out/configure.log" >&2; exit 1; }
  cmake --build $build -j "$(nproc)" --target kvasir_gpu_bench kvasir_gpu_conformance \
    >"$out/build.log" 2>&1 || { tail -n 30 "$out/build.log" >&2; exit 1; }
  if command -v python3 >/dev/null; then
    python3 tests/kernels/cuda/compiled_kernels.py $build/tests/gpu/kvasir_gpu_bench \
      $(find $build/kernels/cuda -name '*.cu.o') || failed+=("compiled kernels")
  fi
fi

if wanted conformance; then
  say "Conformance"
  $build/tests/gpu/kvasir_gpu_conformance >"$out/conformance.log" 2>&1 || failed+=("conformance")
  grep -vE '^ok ' "$out/conformance.log" | tail -n 40
fi

driver_version() { nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1; }

# sanitize TOOL: the conformance suite's cases on few rows, under one of its tools.
sanitize() {
  compute-sanitizer --tool "$1" --error-exitcode 1 $build/tests/gpu/kvasir_gpu_conformance \
    "${2:-}" >"$out/sanitizer-$1.log" 2>&1 || failed+=("compute-sanitizer $1")
  tail -n 3 "$out/sanitizer-$1.log"
}
if wanted sanitizer; then
  if command -v compute-sanitizer >/dev/null; then
    # Races between threads of a block need shared memory: attention and norms.
    say "compute-sanitizer memcheck"; sanitize memcheck Conformance
    say "compute-sanitizer initcheck"; sanitize initcheck ConformanceRows
    say "compute-sanitizer racecheck"; sanitize racecheck ConformanceAttention
  else
    echo "compute-sanitizer is missing: memcheck, racecheck and initcheck were not run" >&2
    failed+=("compute-sanitizer (missing)")
  fi
fi

if wanted bench; then
  say "Table"
  arguments=(--json "$out/gpu.json" --fact "date=$(date -u +%F)"
             --fact "commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
             --fact "driver=$(driver_version)")
  [ $quick -eq 1 ] && arguments+=(--smoke)
  [ -n "$model" ] && arguments+=(--model "$model"
                                 --prompts tests/golden/SmolLM2-135M-Instruct.Q4_1.txt)
  $build/tests/gpu/kvasir_gpu_bench "${arguments[@]}" 2>"$out/bench.log" | tee "$out/gpu.txt" ||
    { tail -n 5 "$out/bench.log" >&2; failed+=("table"); }
fi

say "Done"
if [ ${#failed[@]} -eq 0 ]; then
  [ -s "$out/gpu.json" ] && echo "All went well; $out/gpu.json has the figures" ||
    echo "All that could be run went well; there are no figures"
  exit 0
fi
printf 'FAILED: %s\n' "${failed[@]}" >&2
exit 1
