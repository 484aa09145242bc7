"""What is measured: the rows of the table, their units and bars."""
from dataclasses import dataclass

LENGTHS = (512, 2048, 4096)
CONTEXTS = (0, 2048, 4096)
DECODED = 64  # tokens of each decode figure
STREAMS = 8   # over one prompt of 512 tokens

FIRST_COLD = "first token, 2,000 tokens, cold"
FIRST_NEW_ORDER = {  # by the name that kvasir bench has for the policy; a rival knows one way only
    "concat": "first token, new order, concat",
    "link16": "first token, new order, link(16)",
    "query05": "first token, new order, query(0.05)",
}
SHARED_PROMPT = f"{STREAMS} streams, one prompt"
MEMORY = "resident memory"
ROOF_SHARE = "decode empty, of DRAM roof"


def prefill(tokens):
    return f"prefill {tokens}"


def decode(context):
    return f"decode at {context}" if context else "decode empty"


def batch_gain(streams):
    return f"batch of {streams}, over one stream"


@dataclass(frozen=True)
class Row:
    what: str
    part: str  # for --only
    unit: str = "tokens/s"
    model: str = "Q4_1"
    ratio: float = None    # bar: Kvasir against `rival`, or else the best valid rival
    rival: str = None
    at_least: float = None  # bar on Kvasir's own figure
    at_most: float = None

    @property
    def label(self):
        return self.what if self.model == "Q4_1" else f"{self.what}, {self.model}"

    @property
    def lower_is_better(self):
        return self.unit in ("ms", "MB")

    def gain(self, ours, theirs):
        return theirs / ours if self.lower_is_better else ours / theirs

    def bar(self):
        if self.ratio:
            return f">= {self.ratio:g}x"
        if self.at_least:
            return f">= {self.at_least:g}{'' if self.unit == 'x' else ' '}{self.unit}"
        return f"<= {self.at_most:g} {self.unit}" if self.at_most else ""

    def met(self, ours, ratio):
        """None where there is no bar, or nothing to hold against it."""
        if self.ratio:
            return ratio >= self.ratio if ratio else None
        if self.at_least:
            return ours >= self.at_least
        return ours <= self.at_most if self.at_most else None


ROWS = (
    Row(prefill(512), "prefill", ratio=1.5),
    Row(prefill(2048), "prefill", ratio=1.7),
    Row(prefill(4096), "prefill", ratio=2),
    Row(decode(0), "decode", ratio=1.25),
    Row(ROOF_SHARE, "decode", "%", at_least=70),
    Row(decode(2048), "decode", ratio=2.5),
    Row(decode(4096), "decode", ratio=2.5),
    Row(FIRST_COLD, "ttft", "ms", ratio=1.7),
    Row(FIRST_NEW_ORDER["concat"], "ttft", "ms", ratio=30),
    Row(FIRST_NEW_ORDER["link16"], "ttft", "ms"),
    Row(FIRST_NEW_ORDER["query05"], "ttft", "ms"),
    Row(SHARED_PROMPT, "batch", ratio=3),
    Row(batch_gain(8), "batch", "x", at_least=5),
    Row(batch_gain(16), "batch", "x", at_least=8),
    Row(MEMORY, "memory", "MB", at_most=400),
    Row(prefill(512), "q4_0", model="Q4_0", ratio=1.5, rival="llama.cpp"),
    Row(decode(0), "q4_0", model="Q4_0", ratio=1.2, rival="llama.cpp"),
    Row(prefill(512), "1b", model="1B Q4_0", ratio=1.3),
    Row(decode(0), "1b", model="1B Q4_0", ratio=1.05),
)
PARTS = tuple(dict.fromkeys(row.part for row in ROWS))
