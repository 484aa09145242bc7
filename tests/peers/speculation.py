#!/usr/bin/env python3
"""Decode speed with and without drafts, on questions to be answered by a quotation and on open ones.

    tests/peers/speculation.py --data FOLDER [--items 20] [--kvasir build/release/kvasir]

FOLDER holds xquad.en.json. Starts the server twice, with engine.speculation = off and auto, asks
both the same and compares: answers must be the same text. Let nothing else run meanwhile.
"""
import argparse
import json
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.request

QUOTE = ("Quote, word for word, the sentence of the passage that answers this question, and nothing "
         "else. Question: ")
OPEN = "Write a short story about a lighthouse keeper who finds this: "


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(port, body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions",
                                     json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=300))


def run(kvasir, model, speculation, requests):
    """The replies of a server of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        command = [kvasir, "serve", "--data", data, "--set", f"server.port={port}", "--set",
                   f"engine.speculation={speculation}", "--set", "audit.share=0"]
        server = subprocess.Popen(command + (["--model", model] if model else []),
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                    break
                except OSError:
                    time.sleep(0.1)
            return [post(port, request) for request in requests]
        finally:
            server.terminate()
            server.wait()


def make_requests(path, items, kind):
    requests = []
    for article in json.loads(path.read_text())["data"]:
        for paragraph in article["paragraphs"][:1]:
            question = paragraph["qas"][0]["question"]
            request = {"messages": [{"role": "user", "content": (QUOTE if kind == "quote" else OPEN) + question}],
                       "max_tokens": 96, "temperature": 0}
            if kind == "quote":
                request["documents"] = [{"text": paragraph["context"]}]
            requests.append(request)
    return requests[:items]


def speed(replies):
    tokens = sum(r["usage"]["completion_tokens"] - 1 for r in replies)
    seconds = sum(r["chunk_cache"]["decode_ms"] for r in replies) / 1000
    return tokens / max(seconds, 1e-9)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--kvasir", default="build/release/kvasir")
    parser.add_argument("--model")
    options = parser.parse_args()
    for kind in ("quote", "open"):
        requests = make_requests(options.data / "xquad.en.json", options.items, kind)
        plain, drafted = (run(options.kvasir, options.model, s, requests) for s in ("off", "auto"))
        same = sum(a["choices"][0]["message"]["content"] == b["choices"][0]["message"]["content"]
                   for a, b in zip(plain, drafted))
        details = [r["usage"]["completion_tokens_details"] for r in drafted]
        accepted = sum(d["accepted_prediction_tokens"] for d in details)
        rejected = sum(d["rejected_prediction_tokens"] for d in details)
        print(f"{kind:6s} {len(requests)} answers, {same} the same; tokens/s {speed(plain):.0f} off, "
              f"{speed(drafted):.0f} auto: {speed(drafted) / speed(plain):.2f}x; drafts {accepted} of "
              f"{accepted + rejected} accepted")


if __name__ == "__main__":
    main()
