#!/usr/bin/env python3
"""Decode speed with and without drafts, on questions to be answered by a quotation, on open ones,
and on open ones asked again.

    tests/peers/speculation.py --data FOLDER [--items 20] [--skip 0] [--kinds quote,open,again] [--draft-model FILE]
        [--kvasir build/release/kvasir]

FOLDER holds xquad.en.json. Starts the server twice, with engine.speculation = off and auto, asks
both the same and compares: answers must be the same text. Let nothing else run meanwhile.
"""
import argparse
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from server import Server  # noqa: E402

QUOTE = ("Quote, word for word, the sentence of the passage that answers this question, and nothing "
         "else. Question: ")
OPEN = "Write a short story about a lighthouse keeper who finds this: "


def run(model, speculation, requests, draft_model=None):
    """The replies of a server of its own."""
    flags = ["--set", f"engine.speculation={speculation}", "--set", "audit.share=0"]
    if draft_model:
        flags += ["--draft-model", draft_model]
    server = Server(None, *flags, *(["--model", model] if model else []))
    try:
        replies = [server.request("POST", "/v1/chat/completions", request) for request in requests]
    finally:
        server.close()
    for status, _, body in replies:
        if status != 200:
            sys.exit(f"speculation.py: the server answered {status}: {body}")
    return [body for _, _, body in replies]


def make_requests(path, skip, items, kind):
    requests = []
    articles = json.loads(path.read_text())["data"]
    for round_ in range(max(len(article["paragraphs"]) for article in articles)):  # one of each article first
        for paragraph in (article["paragraphs"][round_] for article in articles if round_ < len(article["paragraphs"])):
            question = paragraph["qas"][0]["question"]
            request = {"messages": [{"role": "user", "content": (QUOTE if kind == "quote" else OPEN) + question}],
                       "max_tokens": 96, "temperature": 0}
            if kind == "quote":
                request["documents"] = [{"text": paragraph["context"]}]
            requests.append(request)
    return requests[skip:skip + items]


def speed(replies):
    tokens = sum(r["usage"]["completion_tokens"] - 1 for r in replies)
    seconds = sum(r["chunk_cache"]["decode_ms"] for r in replies) / 1000
    return tokens / max(seconds, 1e-9)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--skip", type=int, default=0, help="questions that an earlier run has asked")
    parser.add_argument("--kinds", default="quote,open,again")
    parser.add_argument("--kvasir", default="build/release/kvasir")
    parser.add_argument("--model")
    parser.add_argument("--draft-model")
    options = parser.parse_args()
    os.environ["KVASIR_BINARY"] = options.kvasir
    for kind in options.kinds.split(","):
        requests = make_requests(options.data / "xquad.en.json", options.skip, options.items, kind)
        asked = requests * (2 if kind == "again" else 1)
        plain = run(options.model, "off", asked)[-len(requests):]
        drafted = run(options.model, "auto", asked, options.draft_model)[-len(requests):]
        same = sum(a["choices"][0]["message"]["content"] == b["choices"][0]["message"]["content"]
                   for a, b in zip(plain, drafted))
        details = [r["usage"]["completion_tokens_details"] for r in drafted]
        accepted = sum(d["accepted_prediction_tokens"] for d in details)
        rejected = sum(d["rejected_prediction_tokens"] for d in details)
        steps = sum(r["usage"]["completion_tokens"] - 1 for r in drafted) - accepted
        print(f"{kind:6s} {len(requests)} answers, {same} the same; tokens/s {speed(plain):.0f} off, "
              f"{speed(drafted):.0f} auto: {speed(drafted) / speed(plain):.2f}x; drafts {accepted} of "
              f"{accepted + rejected} accepted, {accepted / steps:.2f} a step of {steps}")


if __name__ == "__main__":
    main()
