#!/usr/bin/env python3
"""Runs all engines in turns on the same models and prints their figures beside the bars; see run.sh.

Figures are medians over the rounds. A rival counts only where its output is right (outputs.py): the
ratio of a row is against the best of those, and a figure beside a wrong output is marked with `!`.
"""
import argparse
import json
import os
import pathlib

import ggml
import genai
import kvasir
import outputs
import table
from process import PEERS, Failed
from results import OURS, Results
from rows import PARTS, ROWS


class Engine:
    """What compare.py asks of an engine; the classes need not derive from this one."""

    name = ""
    skipped = None  # or why it cannot run here

    def measure(self, path, wanted):
        """Yields figures by the names of rows.py: those in `wanted` that it knows, maybe others."""

    def greedy(self, path, prompts, tokens):
        """The greedy continuation of each prompt."""


def model_paths():
    cache = os.environ.get("XDG_CACHE_HOME", str(pathlib.Path.home() / ".cache"))
    folder = pathlib.Path(os.environ.get("KVASIR_MODEL_DIR", cache + "/kvasir/models"))
    return {"Q4_1": folder.resolve() / "SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_0": PEERS / "smollm2-q4_0.gguf",
            "1B Q4_0": PEERS / "random-1b-q4_0.gguf"}


def check_outputs(engines, ours, models, results):
    for model, path in models.items():
        if model == "1B Q4_0":
            continue
        able = [e for e in engines if not results.reason(e.name, model)]
        valid = outputs.check(able, ours, model, path,
                              lambda name, reason, model=model: results.skip(name, model, reason))
        for name, is_valid in valid.items():
            results.set_valid(name, model, is_valid)


def measure(engines, models, parts, results):
    for model, path in models.items():
        wanted = {row.what for row in ROWS if row.model == model and row.part in parts}
        for engine in engines:
            if results.reason(engine.name, model):
                continue
            print(f"  {engine.name} on {model}", flush=True)
            try:
                for found in engine.measure(path, wanted):
                    results.add(engine.name, model, found)
            except Failed as failure:
                results.skip(engine.name, model, str(failure))


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kvasir", type=pathlib.Path, default="build/release/kvasir")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, of " + ",".join(PARTS))
    arguments = parser.parse_args()
    arguments.only = set(arguments.only.split(","))
    if not arguments.only <= set(PARTS):
        parser.error("--only: parts are " + ", ".join(PARTS))
    return arguments


def main():
    arguments = read_arguments()
    threads, results = arguments.threads, Results()
    binary = str(arguments.kvasir.resolve())
    ours, int8 = (kvasir.Kvasir(name, binary, threads, dtype)
                  for name, dtype in zip(OURS, ("bf16", "int8")))
    engines = [ours, int8, ggml.LlamaCpp(threads), ggml.IkLlama(threads), ggml.IkAsShipped(threads),
               genai.OpenVino(threads)]
    rows = [row for row in ROWS if row.part in arguments.only]
    models = {name: path for name, path in model_paths().items() if any(r.model == name for r in rows)}
    for model, path in models.items():
        for engine in engines:
            reason = engine.skipped or (None if path.exists() else f"{path} is missing")
            if reason:
                results.skip(engine.name, model, reason)
    # The fault is in a Q4_1 kernel: on the other models it is the same engine twice.
    for model in [name for name in models if name != "Q4_1"]:
        results.skip(ggml.IkAsShipped.name, model, "as ik_llama.cpp")
    check_outputs(engines, ours, models, results)
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
        measure(engines, models, arguments.only, results)
    table.show(engines, rows, results)
    report = {"rows": table.values(engines, rows, results), "bars": table.bars(engines, rows, results),
              "kvasir_bench": ours.bench.get(models["Q4_1"].name) if "Q4_1" in models else None}
    pathlib.Path("build/peers.json").write_text(json.dumps(report, indent=1))
    print("\nwritten: build/peers.json")


if __name__ == "__main__":
    main()
