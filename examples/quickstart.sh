#!/usr/bin/env bash
# From a bare clone to answers out of cached chunk KV, on a Debian 12 machine:
# installs what is missing, builds a release, fetches the default models, ingests ten pages of the
# SQLite manual, asks five questions, each exactly (all prefilled) and fused (chunk KV reused),
# and prints one table. Run it again: it starts from the store on disk and shows hits only.
#   examples/quickstart.sh [--no-install]
# KVASIR_QUICKSTART_DATA names the data folder (default: build/quickstart).
set -euo pipefail
cd "$(dirname "$0")/.."

no_install=()
for argument in "$@"; do
  case "$argument" in
    --no-install) no_install=(--no-install) ;;
    *) echo "quickstart.sh: unknown argument '$argument' (--no-install)" >&2; exit 2 ;;
  esac
done

say() { printf '\n== %s\n' "$*"; }

say "Debian packages"
examples/setup/packages.sh "${no_install[@]}"
echo "all there"

say "Build (release)"
mkdir -p build
if ! { cmake --preset release -DKVASIR_TESTS=OFF && cmake --build build/release --target kvasir; } \
     >build/quickstart.log 2>&1; then
  tail -n 30 build/quickstart.log >&2
  echo "The build failed; the whole log is build/quickstart.log" >&2
  exit 1
fi
echo "build/release/kvasir"

say "Models"
examples/setup/models.sh smollm2 minilm
echo "all there"

data=${KVASIR_QUICKSTART_DATA:-build/quickstart}
kvasir=(build/release/kvasir --data "$data")
manual=/usr/share/doc/sqlite3
pages=()
while read -r page; do pages+=("$manual/$page"); done <examples/sqlite_pages.txt

say "What ingesting ${#pages[@]} pages of the SQLite manual will make"
"${kvasir[@]}" ingest --dry-run "${pages[@]}"
say "Ingest"
"${kvasir[@]}" ingest "${pages[@]}"

say "Five questions, each exact and fused"
"${kvasir[@]}" ask --questions examples/questions.txt --modes exact,fused --table

say "The same over HTTP"
cat <<EOF
build/release/kvasir --data $data serve &
curl -s http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' -d '{
  "model": "default", "collection": "default",
  "messages": [{"role": "user", "content": "$(head -n 1 examples/questions.txt)"}],
  "chunk_cache": {"mode": "fused", "explain": true}}'
EOF
