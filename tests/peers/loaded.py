#!/usr/bin/env python3
"""Speed with one core taken by another process, against the quiet machine.

    tests/peers/loaded.py [--rounds 3] [--kvasir build/release/kvasir]

Runs `kvasir bench` with two threads in turns, alone and beside a loop that keeps one of their cores
busy. An engine whose threads only spin would wait a time slice at every operator. Let nothing else
run meanwhile.
"""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys

WHAT = [("prefill_tps", "512"), ("decode_tps", "0"), ("decode_tps", "512")]


@contextlib.contextmanager
def busy_core(core):
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"],
                            preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def bench(binary, model):
    command = [binary, "bench", "--json", "--threads", "2", "--lengths", "512", "--repeats", "3"]
    out = subprocess.run(command + (["--model", model] if model else []), check=True,
                         capture_output=True, text=True)
    body = json.loads(out.stdout)
    return [body[key][at] for key, at in WHAT]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kvasir", default="build/release/kvasir")
    parser.add_argument("--model")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    quiet, loaded = [], []
    for _ in range(options.rounds):
        quiet.append(bench(options.kvasir, options.model))
        with busy_core(cores[-1]):
            loaded.append(bench(options.kvasir, options.model))
    for i, (key, at) in enumerate(WHAT):
        a, b = (statistics.median(run[i] for run in runs) for runs in (quiet, loaded))
        print(f"{key} {at:>4s}: {a:.0f} tokens/s quiet, {b:.0f} with one of two cores taken: "
              f"{b / a:.2f} (bar 0.40)")


if __name__ == "__main__":
    main()
