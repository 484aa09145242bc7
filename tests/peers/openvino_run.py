#!/usr/bin/env python3
"""Measures OpenVINO GenAI on one GGUF file; runs in an environment that has it (see prepare.sh).

    openvino_run.py MODEL.gguf THREADS JOB        the job and the last line of output are JSON

Its pipeline keeps the KV of prompts that it has seen, so no two prompts here begin alike.
"""
import json
import statistics
import sys
import time

import numpy
import openvino
import openvino_genai

REPEATS = 2


class Runner:
    def __init__(self, path, threads):
        self._pipe = openvino_genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)
        self._rng = numpy.random.default_rng(1)
        self.seconds(self._prompt(64), 4)  # compiles and pages the weights in

    def _prompt(self, tokens, streams=1):
        return self._inputs(numpy.repeat(self._rng.integers(2000, 20000, (1, tokens)), streams, 0))

    @staticmethod
    def _inputs(ids):
        return openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))

    def generate(self, prompt, tokens, ignore_eos=True):
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = tokens, ignore_eos
        config.do_sample, config.apply_chat_template = False, False
        return self._pipe.generate(prompt, config)

    def seconds(self, prompt, tokens):
        begin = time.perf_counter()
        self.generate(prompt, tokens)
        return time.perf_counter() - begin

    def text(self, ids, tokens):
        answer = self.generate(self._inputs(numpy.array([ids])), tokens, ignore_eos=False)
        return self._pipe.get_tokenizer().decode(answer.tokens[0])

    def prefill(self, tokens):
        return statistics.mean(tokens / self.seconds(self._prompt(tokens), 1) for _ in range(REPEATS))

    def decode(self, context, decoded, streams=1):
        """Tokens/s of all streams behind the first token; the prompt is in the cache by then."""
        prompt = self._prompt(max(context, 1), streams)
        self.seconds(prompt, 1)
        first, all_of_them = self.seconds(prompt, 1), self.seconds(prompt, decoded + 1)
        return streams * decoded / (all_of_them - first)


def main():
    path, threads, job = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    runner, decoded = Runner(path, threads), job["decoded"]
    reply = {
        "prefill": {n: runner.prefill(n) for n in job.get("prefill", [])},
        "decode": {n: runner.decode(n, decoded) for n in job.get("decode", [])},
        "streams": runner.decode(512, decoded, job["streams"]) if job.get("streams") else None,
        "first": [1000 * runner.seconds(text, 1) for text in job.get("first", [])],
        "greedy": [runner.text(ids, decoded) for ids in job.get("greedy", [])],
    }
    print("\n" + json.dumps(reply))


if __name__ == "__main__":
    main()
