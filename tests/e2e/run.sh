#!/usr/bin/env bash
# ctest entry of the end-to-end tests: run.sh KVASIR_BINARY. Exit 77 (skipped) where the clients or
# the models are missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$here/../../build/e2e-venv/bin/python
models=${KVASIR_MODEL_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvasir/models}
[ -x "$python" ] || { echo "skipped: build/e2e-venv is missing (tests/run.sh makes it)"; exit 77; }
[ -f "$models/SmolLM2-135M-Instruct.Q4_1.gguf" ] || { echo "skipped: model missing"; exit 77; }
KVASIR_BINARY=$1 exec "$python" -m unittest discover -v -s "$here" -p 'test_*.py'
