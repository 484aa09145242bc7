#!/usr/bin/env python3
"""Time to first token of short requests beside long prompts, by engine.schedule.

    tests/peers/mix.py [--long 3] [--short 30] [--kvasir build/release/kvasir]

Starts the server once for fcfs and once for sjf. A few clients send prompts of about 4,000 tokens
one after the other; beside them short prompts of about 100 tokens arrive at random moments (the
same for both). Prints the p50 and p95 of the short ones and the longest wait of any request. Let
nothing else run meanwhile.
"""
import argparse
import os
import pathlib
import random
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from server import Server  # noqa: E402

WORDS = "the river ferry leaves at noon and a grey heron waits by mossy stones near old mills".split()


def post(server, prompt):
    body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "chunk_cache": {"mode": "exact"}}
    status, _, reply = server.request("POST", "/v1/completions", body)
    if status != 200:
        raise RuntimeError(f"the server answered {status}: {reply}")
    return reply["chunk_cache"]


def text(tokens, seed):
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(tokens))


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, round(share * (len(values) - 1)))]


def run(options, schedule):
    server = Server(None, "--set", f"engine.schedule={schedule}")
    short, waits, stop = [], [], threading.Event()

    def long_client(seed):
        while not stop.is_set():
            waits.append(post(server, text(4000, seed))["queued_ms"])
            seed += 1000

    def short_client(seed, delay):
        time.sleep(delay)
        reply = post(server, text(100, seed))
        short.append(reply["ttft_ms"])
        waits.append(reply["queued_ms"])

    rng = random.Random(1)
    longs = [threading.Thread(target=long_client, args=(i,)) for i in range(options.long)]
    shorts = [threading.Thread(target=short_client, args=(i, 2 + rng.uniform(0, options.seconds)))
              for i in range(options.short)]
    try:
        for thread in longs + shorts:
            thread.start()
        for thread in shorts:
            thread.join()
        stop.set()
        for thread in longs:
            thread.join()
    finally:
        stop.set()
        server.close()
    print(f"{schedule}: {len(short)} short requests, first token after {percentile(short, 0.5):.0f} ms "
          f"(p50), {percentile(short, 0.95):.0f} ms (p95); longest wait of any request "
          f"{max(waits):.0f} ms")
    return percentile(short, 0.95)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--long", type=int, default=3, help="clients with long prompts")
    parser.add_argument("--short", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20, help="over which short ones arrive")
    parser.add_argument("--kvasir", default="build/release/kvasir")
    options = parser.parse_args()
    os.environ["KVASIR_BINARY"] = options.kvasir
    fcfs, sjf = run(options, "fcfs"), run(options, "sjf")
    print(f"p95 under sjf: {sjf / fcfs:.2f} of fcfs")


if __name__ == "__main__":
    main()
