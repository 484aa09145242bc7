#!/usr/bin/env python3
"""Throughput of continuous batching against static batches, on requests of mixed lengths.

    tests/peers/batching.py [--requests 48] [--batch 8] [--kvasir build/release/kvasir]

The same requests (prompts of 10-200 words, answers of 8-512 tokens, drawn from one seed) go to one
server twice: in static batches, the next beginning when all answers of the last are complete, and
all at once with as many running together. Greedy answers must be the same texts. Let nothing else
run meanwhile.
"""
import argparse
import concurrent.futures
import os
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from mix import text  # noqa: E402
from server import Server  # noqa: E402


def make_requests(count):
    rng = random.Random(7)
    return [{"prompt": text(rng.randint(10, 200), i), "max_tokens": round(2 ** rng.uniform(3, 9)),
             "temperature": 0, "chunk_cache": {"mode": "exact"}}
            for i in range(count)]


def ask(server, request):
    status, _, reply = server.request("POST", "/v1/completions", request)
    if status != 200:
        raise RuntimeError(f"the server answered {status}: {reply}")
    return reply["choices"][0]["text"], reply["usage"]["completion_tokens"]


def run(server, requests, batch, static):
    """(answers, tokens a second)"""
    begin = time.monotonic()
    groups = [requests[i:i + batch] for i in range(0, len(requests), batch)] if static else [requests]
    answers = []
    for group in groups:
        with concurrent.futures.ThreadPoolExecutor(len(group)) as pool:
            answers += pool.map(lambda request: ask(server, request), group)
    seconds = time.monotonic() - begin
    return [a for a, _ in answers], sum(n for _, n in answers) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--kvasir", default="build/release/kvasir")
    options = parser.parse_args()
    os.environ["KVASIR_BINARY"] = options.kvasir
    requests = make_requests(options.requests)
    flags = ["--set", f"engine.max_sequences={options.batch}", "--set", "engine.speculation=off",
             "--set", "audit.share=0"]
    results = {}
    for static in (True, False):
        server = Server(None, *flags)
        try:
            results[static] = run(server, requests, options.batch, static)
        finally:
            server.close()
    same = sum(a == b for a, b in zip(results[True][0], results[False][0]))
    print(f"{len(requests)} requests, {options.batch} at once, {same} answers the same; answer tokens/s "
          f"{results[True][1]:.0f} static, {results[False][1]:.0f} continuous: "
          f"{results[False][1] / results[True][1]:.2f}x")


if __name__ == "__main__":
    main()
