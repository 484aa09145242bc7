"""Kvasir as an engine of compare.py."""
import json
import os
import pathlib
import sys

import rows
from process import Failed, run

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from server import Server  # noqa: E402


class Kvasir:
    """See Engine in compare.py."""

    skipped = None

    def __init__(self, name, binary, threads, kv_dtype):
        self.name = name
        self._binary, self._threads, self._kv_dtype = binary, threads, kv_dtype
        self.bench = {}  # by model file: what the last run printed

    def measure(self, path, wanted):
        long = {rows.prefill(n) for n in rows.LENGTHS} | {rows.decode(n) for n in rows.CONTEXTS if n}
        lengths = rows.LENGTHS if wanted & (long - {rows.prefill(512)}) else (512,)
        done = run([self._binary, "bench", "--json", "--model", path, "--threads", self._threads,
                    "--kv-dtype", self._kv_dtype, "--lengths", ",".join(map(str, lengths))])
        bench = self.bench[path.name] = json.loads(done.out)
        found = {rows.prefill(int(n)): speed for n, speed in bench["prefill_tps"].items()}
        found |= {rows.decode(int(n)): speed for n, speed in bench["decode_tps"].items()}
        read = bench["decode_tps"]["0"] * bench["weights_mib"] * 2**20
        found[rows.ROOF_SHARE] = 100 * read / (bench["roof"]["dram_gbps"] * 1e9)
        found[rows.FIRST_COLD] = bench["ttft_ms"]["exact"]
        found |= {row: bench["ttft_ms"][policy]["disk"] for policy, row in rows.FIRST_NEW_ORDER.items()}
        found[rows.MEMORY] = bench["resident_mib"] * 2**20 / 1e6
        yield found | self._batches(bench)

    @staticmethod
    def _batches(bench):
        """Older binaries do not measure these."""
        found = {}
        shared, own = bench.get("shared_batch_tps", {}), bench.get("batch_decode_tps", {})
        if str(rows.STREAMS) in shared:
            found[rows.SHARED_PROMPT] = shared[str(rows.STREAMS)]
        for streams in ("8", "16"):
            if streams in own and "1" in own:
                found[rows.batch_gain(streams)] = own[streams] / own["1"]
        return found

    def greedy(self, path, prompts, tokens):
        replies = self._ask(path, "/v1/completions", [
            {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "chunk_cache": {"mode": "exact"}}
            for prompt in prompts])
        return [reply["choices"][0]["text"] for reply in replies]

    def texts_of(self, path, tokens):
        """The text of each token id."""
        replies = self._ask(path, "/detokenize", [{"tokens": [token]} for token in tokens])
        return [reply["prompt"] for reply in replies]

    def _ask(self, path, where, bodies):
        os.environ["KVASIR_BINARY"] = self._binary
        server = Server(None, "--model", str(path), "--set", f"engine.threads={self._threads}",
                        "--set", f"engine.kv_dtype={self._kv_dtype}")
        try:
            replies = [server.request("POST", where, body) for body in bodies]
        finally:
            server.close()
        for status, _, reply in replies:
            if status != 200:
                raise Failed(f"kvasir serve answered {status}: {reply}")
        return [reply for _, _, reply in replies]
