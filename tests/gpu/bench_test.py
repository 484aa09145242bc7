#!/usr/bin/env python3
"""The benchmark in the emulation, in small: every section gives figures, rates are work over time,
bytes and operations are those that the shapes have, and nothing is shown as a card's.
  bench_test.py PROGRAM"""
import json
import pathlib
import subprocess
import sys
import tempfile

UNITS = {"GB/s": 1e9, "TB/s": 1e12, "TFLOP/s": 1e12}
SECTIONS = {"Ceilings", "Products", "Attention", "KV loads", "Generation", "First token", "Logits"}
# tests/gpu/bench/random_model.cc's tiny shape.
LAYERS, WIDTH, HEADS, DIMS, FFN, VOCAB = 2, 64, 2, 64, 128, 96


def run(program, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "gpu.json"
        done = subprocess.run([program, "--smoke", "--json", path, "--fact", "commit=abc",
                               *arguments], capture_output=True, text=True, check=False)
        return done, json.loads(path.read_text())


def prefill_work(tokens):
    a_layer = WIDTH * DIMS * (2 * HEADS + 2) + 3 * WIDTH * FFN
    attention = 4 * LAYERS * HEADS * DIMS * tokens * (tokens + 1) / 2
    return 2 * VOCAB * WIDTH + 2 * tokens * LAYERS * a_layer + attention


def main():
    done, table = run(sys.argv[1])
    problems = []

    def expect(holds, what):
        if not holds:
            problems.append(what)

    expect(done.returncode in (0, 1), f"exit status {done.returncode}: {done.stderr[-2000:]}")
    expect("EMULATION" in done.stdout, "the table does not say that it is an emulation's")
    expect(" met" not in done.stdout and "MISSED" not in done.stdout, "a bar is judged")
    expect(table["measured"] is False and table["device"] == "emulation", "shown as measured")
    expect(table["commit"] == "abc", "the facts are lost")
    expect(all(bar["met"] is None for bar in table["bars"]), "a bar is judged in the JSON")

    figures = table["figures"]
    missing = {entry["section"]: entry["why"] for entry in table["missing"]}
    expect("Greedy text" in missing, "text is compared without a model")
    for section in SECTIONS:
        expect(any(f["section"] == section for f in figures), f"no figures of {section}")
        why = missing.get(section, "int8")
        expect("int8" in why.lower() or "i8" in why.lower(), f"{section}: {why}")
    for f in figures:
        rate = f["work"] / f["seconds"] / UNITS.get(f["unit"], 1) if f["seconds"] else f["value"]
        expect(f["value"] is not None and abs(rate - f["value"]) <= 1e-6 * abs(rate),
               f"{f['name']}: {f['value']} is not {rate} {f['unit']}")

    def work(section, name, unit):
        found = [f["work"] for f in figures
                 if f["section"] == section and name in f["name"] and f["unit"] == unit]
        expect(found, f"no figure {name} in {section}")
        return found[0] if found else None

    expect(work("Ceilings", "device copy", "TB/s") == 2 * 65536, "bytes of a copy")
    expect(work("Ceilings", "bf16 product", "TFLOP/s") == 2 * 128 ** 3, "work of the product")
    weights = work("Products", "BF16 [64][256] 1 rows, GEMV", "GB/s")
    expect(weights == 2 * 64 * 256, "weights' bytes")
    expect(work("Attention", "decode, BF16 KV, 2 x 80", "TB/s") == 2 * 80 * 2 * 64 * 2, "KV bytes")
    chunk = 2 * (2 * 40 * 64 + 4 * 64 + 4 * 40)
    expect(work("KV loads", "40 tokens", "GB/s") == chunk, "bytes of a chunk")
    expect(work("Generation", "prefill of 24", "tokens/s") == 24, "tokens of a prompt")
    expect(work("Generation", "kernels one by one, decode, batch 1", "tokens/s"), "kernels one by one")
    expect(work("Generation", "prefill of 24", "TFLOP/s") == prefill_work(24), "work of a prompt")
    same = [f for f in figures if "same best token" in f["name"]]
    expect(len(same) == 4 and all(f["value"] == 2 for f in same), "CPU and emulation disagree")
    expect(len(table["bars"]) >= 5, f"{len(table['bars'])} bars")
    for problem in problems:
        print(problem)
    print(f"{len(figures)} figures, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
