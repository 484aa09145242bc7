#!/usr/bin/env python3
"""Mode optimistic against exact: when the first provisional and the first verified text is there,
when all of it, and how much of the drafts stood.

    tests/peers/optimistic.py --data FOLDER [--items 20] [--policies concat,link(8)] [--kvasir build/release/kvasir]

FOLDER holds musique_dev.json. Every question comes with 8 passages of about 250 tokens, whose KV is
made beforehand. Modes are asked in turns over one connection each, streamed; past answers are not
drafted from. Medians over questions, as the client sees them. Ends with 1 unless every answer of
mode optimistic is that of exact, and what it showed provisionally was corrected where it was wrong.
Let nothing else run meanwhile.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from server import Server  # noqa: E402

PASSAGE_WORDS = 190  # about 250 tokens


def make_requests(path, items, passages, max_tokens):
    requests = []
    for record in json.loads(path.read_text())[:items]:
        texts = [" ".join(ctx["text"].split()[:PASSAGE_WORDS]) for ctx in record["ctxs"][:passages]]
        requests.append({"messages": [{"role": "user", "content": record["question"]}],
                         "documents": [{"text": text} for text in texts], "max_tokens": max_tokens})
    return requests


def warm(server, request):
    body = {**request, "max_tokens": 1, "chunk_cache": {"mode": "fused", "policy": "concat"}}
    status, _, reply = server.request("POST", "/v1/chat/completions", body)
    if status != 200:
        sys.exit(f"optimistic.py: the server answered {status}: {reply}")


class Answer:
    """One streamed answer as a client sees it; times in ms since the request."""

    def __init__(self, server, request, cache):
        self.text, self.provisional, self.correction = "", "", None
        self.first_provisional = self.first_verified = None
        body = json.dumps({**request, "stream": True, "chunk_cache": cache}).encode()
        begin = time.monotonic()
        with urllib.request.urlopen(urllib.request.Request(
                server.url + "/v1/chat/completions", data=body,
                headers={"Content-Type": "application/json"}), timeout=120) as reply:
            for line in reply:
                if line.startswith(b"data: {"):
                    self.read(json.loads(line[6:]), 1000 * (time.monotonic() - begin))
        self.total = 1000 * (time.monotonic() - begin)

    def read(self, chunk, now):
        extension = chunk.get("chunk_cache", {})
        text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        if text and self.first_verified is None:
            self.first_verified = now
        self.text += text
        if "provisional" in extension:
            self.first_provisional = self.first_provisional or now
            self.provisional += extension["provisional"]["content"]
        elif "correction" in extension:
            self.correction = extension["correction"]["characters"]
        elif extension:
            self.cache, self.usage = extension, chunk.get("usage")

    def stands(self):
        """What of the provisional text the client keeps."""
        return self.provisional[:self.correction]


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else float("nan")


def show(name, answers):
    print(f"{name:24s} first provisional {median(a.first_provisional for a in answers):7.0f} ms, first verified "
          f"{median(a.first_verified for a in answers):7.0f} ms, total {median(a.total for a in answers):7.0f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--passages", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--policies", default="concat", help="of the drafts")
    parser.add_argument("--kvasir", default="build/release/kvasir")
    parser.add_argument("--model")
    options = parser.parse_args()
    os.environ["KVASIR_BINARY"] = options.kvasir
    policies = re.findall(r"[^,(]+(?:\([^)]*\))?(?:\+[^,(]+(?:\([^)]*\))?)*", options.policies)
    caches = {"exact": {"mode": "exact"}}
    for policy in policies:
        caches[f"optimistic {policy}"] = {"mode": "optimistic", "policy": policy}
        caches[f"  provisional {policy}"] = {"mode": "optimistic", "policy": policy, "provisional": True}
    requests = make_requests(options.data / "musique_dev.json", options.items, options.passages, options.max_tokens)
    answers = {name: [] for name in caches}
    server = Server(None, "--set", "audit.share=0", "--set", "engine.answer_index=off",
                    *(["--model", options.model] if options.model else []))
    try:
        for request in requests:
            warm(server, request)
            for name, cache in caches.items():
                answers[name].append(Answer(server, request, cache))
    finally:
        server.close()
    exact, wrong = answers["exact"], 0
    prompt = median(a.usage["prompt_tokens"] for a in exact)
    print(f"{len(exact)} questions, {prompt:.0f} prompt tokens, "
          f"{median(a.usage['completion_tokens'] for a in exact):.0f} of answer (medians)")
    for name, got in answers.items():
        show(name, got)
        if name == "exact":
            continue
        same = sum(a.text == b.text and b.text.startswith(a.stands()) for a, b in zip(got, exact))
        drafts = [a.cache["draft"] for a in got]
        drafted = sum(d["drafted_tokens"] for d in drafts)
        stood = sum(d["stood_tokens"] for d in drafts)
        whole = sum(d["drafted_tokens"] == d["stood_tokens"] for d in drafts)
        details = [a.usage["completion_tokens_details"] for a in got]
        accepted = sum(d["accepted_prediction_tokens"] for d in details)
        rejected = sum(d["rejected_prediction_tokens"] for d in details)
        first = median(a.first_verified / b.first_verified for a, b in zip(got, exact))
        total = median(a.total / b.total for a, b in zip(got, exact))
        print(f"    {stood} of {drafted} drafted tokens stood ({stood / max(drafted, 1):.0%}), all of them in {whole} "
              f"answers; {accepted} of {accepted + rejected} verified drafts of all sources\n    first verified {first:.2f}, "
              f"total {total:.2f} of exact; {same} of {len(got)} answers the same")
        wrong += len(got) - same
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
