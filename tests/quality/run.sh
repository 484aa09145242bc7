#!/usr/bin/env bash
# Measures what reuse costs in answers, on real models and real questions, and prints every figure
# beside its bar. Reports (JSON, HTML) and logs lie in build/quality; a run that was stopped goes on
# where it was. Hours on two cores; KL does not depend on what else runs, times do.
#   tests/quality/run.sh --data FOLDER [--items 50] [--parts smollm2,qwen,gemma,policies,codecs,certify]
# FOLDER holds musique_dev.json (YaoJiayi/CacheBlend, inputs/musique_s.json) and, for certify,
# xquad.en.json (google-deepmind/xquad) and nq-open-oracle.jsonl.gz (nelson-liu/lost-in-the-middle).
set -euo pipefail
cd "$(dirname "$0")/../.."

items=50 data=${KVASIR_DATA_DIR:-} parts=smollm2,qwen,gemma,policies,codecs,certify
while [ $# -gt 0 ]; do
  case $1 in
    --items) items=$2 ;;
    --data) data=$2 ;;
    --parts) parts=$2 ;;
    *) echo "run.sh: $1: use --data FOLDER, --items N or --parts LIST" >&2; exit 2 ;;
  esac
  shift 2
done
[ -f "$data/musique_dev.json" ] || { echo "run.sh: name the folder of musique_dev.json: --data FOLDER" >&2; exit 2; }

out=$PWD/build/quality
kvasir=${KVASIR:-build/release/kvasir}
models=${KVASIR_MODEL_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvasir/models}
mkdir -p "$out"
export KVASIR__ENGINE__COMPUTE=f32  # what policies change, not what products in 8 bits do
if [ ! -x "$kvasir" ]; then
  cmake --preset release >"$out/build.log" 2>&1
  cmake --build build/release --target kvasir >>"$out/build.log" 2>&1
fi
convert=examples/eval/convert.py
$convert "$data/musique_dev.json" --items "$items" --no-answers --primer "$out/primer7.txt" \
  --primer-passages 7 >"$out/musique.jsonl"
$convert "$data/musique_dev.json" --items "$items" --no-answers --primer "$out/primer1.txt" \
  --primer-passages 1 >/dev/null

# evaluate NAME MODEL QUESTIONS ARGUMENTS...
evaluate() {
  local name=$1 model=$2 questions=$3
  shift 3
  if [ -f "$out/$name.json" ]; then echo "$name: build/quality/$name.json is there already"; return; fi
  echo "$name: log in build/quality/$name.log"
  "$kvasir" eval --model "$models/$model" --questions "$questions" --data "$out/data-${name%%-*}" \
    --output "$out/$name" --no-free --no-choose \
    --set collection.system="You answer questions from the given passages. Answer with a short phrase only." \
    "$@" >"$out/$name.log" 2>&1 || { tail -n 5 "$out/$name.log" >&2; exit 1; }
}

smollm2=SmolLM2-135M-Instruct.Q4_1.gguf
for part in ${parts//,/ }; do
  case $part in
    smollm2)  # long primers of the same kind of text suit it
      examples/setup/models.sh smollm2 minilm
      evaluate smollm2 $smollm2 "$out/musique.jsonl" --ingestion fixed \
        --policies "query(0.05),query(0.07,rows=0,draft=16)" \
        --set collection.primer_tokens=2048 --set collection.primer="$(cat "$out/primer7.txt")" ;;
    policies)  # all the others, on fewer questions
      examples/setup/models.sh smollm2 minilm
      head -n 10 "$out/musique.jsonl" >"$out/policies.jsonl"
      evaluate policies $smollm2 "$out/policies.jsonl" --ingestion bare,anchor,fixed,neighbour \
        --policies "link(16),blend(0.15),query(0.05),query(0.07,rows=0,draft=16),query(0.05)+shift,parallel(0.9,0.9)" \
        --set collection.primer_tokens=2048 --set collection.primer="$(cat "$out/primer7.txt")" ;;
    qwen)
      examples/setup/models.sh qwen
      evaluate qwen qwen2.5-coder-0.5b-instruct-q4_k_m.gguf "$out/musique.jsonl" --ingestion fixed \
        --policies "query(0.14),query(0.14,rows=0)" \
        --set collection.primer="$(cat "$out/primer1.txt")" ;;
    gemma)
      examples/setup/models.sh gemma
      evaluate gemma gemma-3-270m-q4_k_m.gguf "$out/musique.jsonl" --ingestion fixed \
        --policies "query(0.05),query(0.14,rows=0)" --set collection.primer="$(cat "$out/primer1.txt")" ;;
    codecs)  # on the exact KV of the whole prompt
      examples/setup/models.sh smollm2
      head -n 10 "$out/musique.jsonl" >"$out/codecs.jsonl"
      evaluate codecs $smollm2 "$out/codecs.jsonl" --ingestion in_place --codecs f16,int8,int4 \
        --policies concat ;;
    certify)  # calibrated on two kinds of questions, MuSiQue and XQuAD, tried on a third
      examples/setup/models.sh smollm2
      $convert "$data/musique_dev.json" --items 50 --no-answers >"$out/musique50.jsonl"
      $convert "$data/xquad.en.json" --items 40 --distractors --no-answers >"$out/xquad.jsonl"
      $convert "$data/nq-open-oracle.jsonl.gz" --items 200 --distractors --no-answers >"$out/nq.jsonl"
      for kind in musique50 xquad; do
        evaluate certify-$kind $smollm2 "$out/$kind.jsonl" --calibrate --policies concat --steps 1
      done
      evaluate certify-held_out $smollm2 "$out/nq.jsonl" --policies "certify(0.05,0.1)" --steps 1 ;;
    *) echo "run.sh: no part '$part'" >&2; exit 2 ;;
  esac
done
exec python3 tests/quality/bars.py "$out"
