"""OpenVINO GenAI as an engine of compare.py: a process of openvino_run.py for each request."""
import json
import pathlib

import rows
import texts
from process import PEERS, run, why_skipped


class OpenVino:
    """See Engine in compare.py."""

    name = "OpenVINO"

    def __init__(self, threads):
        self._threads = threads
        self.skipped = why_skipped("openvino")

    def measure(self, path, wanted):
        first = [texts.WARM_UP, texts.rag_prompt(0), texts.rag_prompt(1)]
        reply, peak_mb = self._run(path, {
            "prefill": [n for n in rows.LENGTHS if rows.prefill(n) in wanted],
            "decode": [n for n in rows.CONTEXTS if rows.decode(n) in wanted],
            "streams": rows.STREAMS if rows.SHARED_PROMPT in wanted else 0,
            "first": first if rows.FIRST_COLD in wanted else [],
            "decoded": rows.DECODED})
        found = {rows.prefill(int(n)): speed for n, speed in reply["prefill"].items()}
        found |= {rows.decode(int(n)): speed for n, speed in reply["decode"].items()}
        if reply["streams"]:
            found[rows.SHARED_PROMPT] = reply["streams"]
        if reply["first"]:
            _, cold, again = reply["first"]
            found |= {rows.FIRST_COLD: cold} | dict.fromkeys(rows.FIRST_NEW_ORDER.values(), again)
        yield found | {rows.MEMORY: peak_mb}

    def greedy(self, path, prompts, tokens):
        return self._run(path, {"greedy": prompts, "decoded": tokens})[0]["greedy"]

    def _run(self, path, job):
        script = pathlib.Path(__file__).resolve().with_name("openvino_run.py")
        done = run([PEERS / "venv/bin/python", script, path, self._threads, json.dumps(job)])
        return json.loads(done.out.splitlines()[-1]), done.peak_mb
