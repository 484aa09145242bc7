#!/usr/bin/env bash
# Builds Kvasir and passes all of its tests, from a bare clone on a Debian 12 machine.
#   tests/run.sh [--no-install] [--quick]
# --no-install  do not install Debian packages, fail if some are missing
# --quick       leave out the sanitizer build
# Without network the tests that need a model say "skipped"; with CI=true that is a failure.
# Whole logs lie in build/logs.
set -euo pipefail
cd "$(dirname "$0")/.."

no_install=()
quick=0
for argument in "$@"; do
  case "$argument" in
    --no-install) no_install=(--no-install) ;;
    --quick) quick=1 ;;
    *) echo "run.sh: unknown argument '$argument' (--no-install, --quick)" >&2; exit 2 ;;
  esac
done
mkdir -p build/logs
started=$SECONDS
say() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - started)); }

# logged NAME COMMAND...: runs it with its output in build/logs/NAME.log, the end of it on failure.
logged() {
  local name=$1
  shift
  if ! "$@" >"build/logs/$name.log" 2>&1; then
    tail -n 40 "build/logs/$name.log" >&2
    echo "$name failed; the whole log is build/logs/$name.log" >&2
    exit 1
  fi
}

say "Debian packages"
examples/setup/packages.sh --tests "${no_install[@]}"

say "Models"
if ! examples/setup/models.sh smollm2 minilm gemma; then
  [ "${CI:-}" = true ] && { echo "CI needs the models" >&2; exit 1; }
  echo "Going on without: tests that need a model will be skipped"
fi

say "Architecture checks"
python3 tests/check_architecture.py
git ls-files '*.h' '*.cc' '*.cu' '*.cuh' | xargs clang-format --dry-run -Werror

say "kernels/ and engine/ alone"
logged engine-only-configure cmake --preset engine-only -DKVASIR_CUDA=OFF # the release build has it
logged engine-only-build cmake --build --preset engine-only

say "Release build"
logged release-configure cmake --preset release -DKVASIR_TESTS=ON
logged release-build cmake --build --preset release

say "Clients for the end-to-end tests"
if [ ! -x build/e2e-venv/bin/python ] || ! build/e2e-venv/bin/python -c 'import openai' 2>/dev/null; then
  if ! { python3 -m venv build/e2e-venv &&
         build/e2e-venv/bin/pip install --quiet --disable-pip-version-check \
           -r tests/e2e/requirements.txt; } >build/logs/venv.log 2>&1; then
    [ "${CI:-}" = true ] && { tail build/logs/venv.log >&2; exit 1; }
    rm -rf build/e2e-venv
    echo "No network: the end-to-end tests will be skipped"
  fi
fi

say "Tests (release)"
ctest --preset release --output-log build/logs/ctest-release.log --output-junit ctest.xml \
  >build/logs/ctest.out 2>&1 && result=0 || result=$?
grep -E '[*]{3}(Failed|Timeout|Exception|Not Run)' build/logs/ctest.out || true
tail -n 12 build/logs/ctest.out
[ $result -eq 0 ] || { echo "Tests failed; the whole log is build/logs/ctest-release.log" >&2; exit 1; }
if [ "${CI:-}" = true ] && grep -qE '\*\*\*Skipped' build/logs/ctest.out; then
  grep -E '\*\*\*Skipped' build/logs/ctest.out | grep -vE "$(cat tests/may_skip.txt)" >build/logs/skipped || true
  if [ -s build/logs/skipped ]; then
    cat build/logs/skipped >&2
    echo "Tests were skipped in CI" >&2
    exit 1
  fi
fi

if [ $quick -eq 0 ]; then
  say "Sanitizer build (address, undefined behaviour)"
  logged asan-configure cmake --preset asan
  logged asan-build cmake --build --preset asan
  say "Unit tests under the sanitizers"
  # Without models: the real ones would take minutes here and prove no more than the tiny ones.
  KVASIR_MODEL_DIR="$PWD/build/no-models" ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 \
  LSAN_OPTIONS=suppressions="$PWD/tests/lsan.supp" UBSAN_OPTIONS=print_stacktrace=1 \
    ctest --preset asan -LE e2e >build/logs/ctest-asan.out 2>&1 && result=0 || result=$?
  grep -E '[*]{3}(Failed|Timeout|Exception|Not Run)' build/logs/ctest-asan.out || true
  tail -n 8 build/logs/ctest-asan.out
  [ $result -eq 0 ] || { echo "Sanitized tests failed; see build/logs/ctest-asan.out" >&2; exit 1; }
fi

say "All passed"
grep -E 'tests passed' build/logs/ctest.out
