"""What compare.py found, and what follows from it."""
import statistics

OURS = ("kvasir", "kvasir int8 KV")  # as shipped; with engine.kv_dtype = int8


class Results:
    """Figures, validity and reasons for gaps, by engine and model."""

    def __init__(self):
        self._values = {}
        self._valid = {}
        self._skipped = {}

    def add(self, engine, model, found):
        for what, value in found.items():
            self._values.setdefault((engine, model, what), []).append(value)

    def value(self, engine, row):
        values = self._values.get((engine, row.model, row.what))
        return statistics.median(values) if values else None

    def skip(self, engine, model, reason):
        print(f"skipped: {engine} on {model}: {reason}", flush=True)
        self._skipped[engine, model] = reason

    def reason(self, engine, model):
        return self._skipped.get((engine, model))

    def set_valid(self, engine, model, valid):
        self._valid[engine, model] = valid

    def valid(self, engine, model):
        """Random weights have no text to check: there the same kernels' output on Q4_0 counts."""
        return self._valid.get((engine, "Q4_0" if model == "1B Q4_0" else model))

    def rival(self, row, engines):
        """The name and figure of whom Kvasir is held against: (None, None) if there is nobody."""
        names = [row.rival] if row.rival else [e.name for e in engines if e.name not in OURS]
        found = [(name, self.value(name, row)) for name in names
                 if self.value(name, row) and self.valid(name, row.model) is not False]
        pick = min if row.lower_is_better else max
        return pick(found, key=lambda pair: pair[1], default=(None, None))

    def verdict(self, row, engines, name):
        """(rival, ratio, whether the bar is met) of `name`, one of OURS; each None where there is none."""
        ours = self.value(name, row)
        rival, theirs = self.rival(row, engines)
        ratio = row.gain(ours, theirs) if ours and theirs else None
        return rival, ratio, row.met(ours, ratio) if ours else None
