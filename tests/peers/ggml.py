"""llama.cpp and ik_llama.cpp as engines of compare.py, measured with their own tools."""
import json
import os
import re
import socket
import subprocess
import time
import urllib.request

import rows
import texts
from process import PEERS, Failed, run, why_skipped


class LlamaServer:
    """llama-server of either tree on a free port, for as long as the `with` lasts."""

    def __init__(self, binary, path, threads, env):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self._url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [str(binary), "-m", str(path), "-t", str(threads), "-c", "4096", "-np", "1", "-fa", "on",
             "--port", port],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=PEERS, env={**os.environ, **env})

    def __enter__(self):
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(self._url + "/health", timeout=5):
                    return self
            except OSError:
                time.sleep(0.2)
        self.__exit__()
        raise Failed("llama-server did not become ready")

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def complete(self, prompt, tokens):
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": True}
        request = urllib.request.Request(self._url + "/completion", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as reply:
            return json.loads(reply.read())["content"]

    def milliseconds_to_first(self, prompt):
        begin = time.perf_counter()
        self.complete(prompt, 1)
        return (time.perf_counter() - begin) * 1000


class Ggml:
    """See Engine in compare.py. What differs between the two is in the subclasses."""

    name = what = build = None
    env = {}
    batch_flags = ()

    def __init__(self, threads):
        self._threads = threads
        self.skipped = why_skipped(self.what)
        self._peak = 0

    def variants(self, path, context):
        """Sets of flags of llama-bench that are worth trying; the best figure counts."""
        raise NotImplementedError

    def decode_flags(self, context):
        raise NotImplementedError

    def measure(self, path, wanted):
        self._peak = 0
        for n in rows.LENGTHS:
            if rows.prefill(n) in wanted:
                yield {rows.prefill(n): self._bench(path, n, "-p", n, "-n", 0)}
        for n in rows.CONTEXTS:
            if rows.decode(n) in wanted or rows.MEMORY in wanted:
                yield {rows.decode(n): self._bench(path, n, *self.decode_flags(n))}
        if rows.MEMORY in wanted:
            yield {rows.MEMORY: self._peak}  # of the runs above: the longest context decides it
        if rows.SHARED_PROMPT in wanted:
            yield {rows.SHARED_PROMPT: self._shared_prompt(path)}
        if rows.FIRST_COLD in wanted:
            yield self._first_tokens(path)

    def greedy(self, path, prompts, tokens):
        with self._server(path) as server:
            return [server.complete(prompt, tokens) for prompt in prompts]

    def _tool(self, name):
        return PEERS / self.build / "bin" / name

    def _server(self, path):
        return LlamaServer(self._tool("llama-server"), path, self._threads, self.env)

    def _bench(self, path, context, *flags):
        speeds = []
        for variant in self.variants(path, context):
            done = run([self._tool("llama-bench"), "-m", path, "-t", self._threads, "-r", 2, "-o",
                        "json", *flags, *variant], self.env)
            self._peak = max(self._peak, done.peak_mb)
            speeds.append(json.loads(done.out)[-1]["avg_ts"])
        return max(speeds)

    def _shared_prompt(self, path):
        """Generated tokens/s of all streams together; one tree prints the table as errors."""
        done = run([self._tool("llama-batched-bench"), "-m", path, "-t", self._threads, "-c", 4096,
                    "-npp", 512, "-ntg", rows.DECODED, "-npl", rows.STREAMS, "-pps", "-fa", "on",
                    *self.batch_flags], self.env)
        cells = re.search(rf"^\| *512 \| *{rows.DECODED} \| *{rows.STREAMS} \|(.*)\|$",
                          done.out + done.errors, re.M)
        if not cells:
            raise Failed(f"llama-batched-bench printed no row of {rows.STREAMS} streams")
        return float(cells[1].split("|")[4])

    def _first_tokens(self, path):
        with self._server(path) as server:
            server.complete(texts.WARM_UP, 4)
            cold = server.milliseconds_to_first(texts.rag_prompt(0))
            again = server.milliseconds_to_first(texts.rag_prompt(1))
        return {rows.FIRST_COLD: cold} | dict.fromkeys(rows.FIRST_NEW_ORDER.values(), again)


class LlamaCpp(Ggml):
    name, what, build = "llama.cpp", "llama", "build"
    batch_flags = ("-kvu",)  # one copy of the shared prompt

    def variants(self, path, context):
        return [("-fa", "on")]

    def decode_flags(self, context):
        return "-p", 0, "-n", rows.DECODED, "-d", context


class IkLlama(Ggml):
    name, what, build = "ik_llama.cpp", "ik", "ik_llama.cpp/build"

    def variants(self, path, context):
        """Repacking at load knows Q4_0 but not Q4_1."""
        flash = [("-fa", "1")] if context else [("-fa", "1"), ("-fa", "0")]
        repack = ["0", "1"] if "q4_0" in path.name else ["0"]
        return [(*flags, "-rtr", choice) for flags in flash for choice in repack]

    def decode_flags(self, context):
        return ("-p", 0, "-n", 0, "-gp", f"{context},{rows.DECODED}") if context else (
            "-p", 0, "-n", rows.DECODED)


class IkAsShipped(IkLlama):
    """With its Q4_1 kernel that leaves inputs out (ik_q4_1_tail.inc); only prompts come to it."""

    name, env = "ik as shipped", {"IK_AS_SHIPPED": "1"}
    _of_prompts = {rows.FIRST_COLD, *map(rows.prefill, rows.LENGTHS)}

    def measure(self, path, wanted):
        return super().measure(path, wanted & self._of_prompts)
