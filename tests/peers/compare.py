#!/usr/bin/env python3
"""Runs kvasir bench and llama-bench in turns and prints tokens/s and ratios; see run.sh."""
import argparse
import json
import os
import pathlib
import statistics
import subprocess

WHAT = ("prefill 512", "decode empty", "decode at 2048")
BARS = {"prefill 512": 2.5, "decode empty": 1.1, "decode at 2048": 1.5}


def model_path():
    cache = os.environ.get("XDG_CACHE_HOME", str(pathlib.Path.home() / ".cache"))
    folder = os.environ.get("KVASIR_MODEL_DIR", cache + "/kvasir/models")
    return folder + "/SmolLM2-135M-Instruct.Q4_1.gguf"


def run_llama(binary, model, threads):
    """llama-bench rows: prompt processing of 512, generation of 64 at depth 0 and 2,048."""
    speeds = {}
    for what, flags in {
        "prefill 512": ["-p", "512", "-n", "0"],
        "decode empty": ["-p", "0", "-n", "64"],
        "decode at 2048": ["-p", "0", "-n", "32", "-d", "2048"],
    }.items():
        out = subprocess.run([binary, "-m", model, "-t", str(threads), "-fa", "on", "-r", "2", "-o",
                              "json", *flags], capture_output=True, text=True, check=True)
        speeds[what] = json.loads(out.stdout)[-1]["avg_ts"]
    return speeds


def run_kvasir(binary, model, threads):
    out = subprocess.run([binary, "bench", "--json", "--model", model, "--threads", str(threads),
                          "--lengths", "512,2048"], capture_output=True, text=True, check=True)
    bench = json.loads(out.stdout)
    return {
        "prefill 512": bench["prefill_tps"]["512"],
        "decode empty": bench["decode_tps"]["0"],
        "decode at 2048": bench["decode_tps"]["2048"],
    }, bench


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--kvasir", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    model = model_path()
    ours, theirs = {w: [] for w in WHAT}, {w: [] for w in WHAT}
    bench = None
    for round_number in range(args.rounds):
        print(f"round {round_number + 1} of {args.rounds}", flush=True)
        speeds, bench = run_kvasir(args.kvasir, model, args.threads)
        rival = run_llama(args.llama_bench, model, args.threads)
        for what in WHAT:
            ours[what].append(speeds[what])
            theirs[what].append(rival[what])
    rows = []
    print(f"\n{'tokens/s, median':<18}{'kvasir':>10}{'llama.cpp':>11}{'ratio':>8}{'bar':>7}")
    for what in WHAT:
        a, b = statistics.median(ours[what]), statistics.median(theirs[what])
        print(f"{what:<18}{a:>10.0f}{b:>11.0f}{a / b:>8.2f}{BARS[what]:>7.1f}")
        rows += [{"what": what, "engine": "kvasir", "value": a, "unit": "tokens/s"},
                 {"what": what, "engine": "llama.cpp", "value": b, "unit": "tokens/s"}]
    pathlib.Path("build/peers.json").write_text(
        json.dumps({"rows": rows, "kvasir_bench": bench}, indent=1))
    print("\nwritten: build/peers.json")


if __name__ == "__main__":
    main()
