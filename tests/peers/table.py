"""The table that a run prints, and its rows for build/peers.json."""
from results import OURS


def figure(value):
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def show(engines, rows, results):
    head = "".join(f"{e.name:>15}" for e in engines)
    print(f"\n{'median':<36}{'':<9}{head}  {'against':<13}{'bar':<16}"
          + "".join(f"{'ratio':>7} {'met':<4}" for _ in OURS))
    for row in rows:
        cells = ""
        for engine in engines:
            value = results.value(engine.name, row)
            wrong = value is not None and results.valid(engine.name, row.model) is False
            cells += f"{figure(value) + ('!' if wrong else ''):>15}"
        rival, said = None, ""
        for name in OURS:
            against, ratio, met = results.verdict(row, engines, name)
            rival = rival or against
            said += f"{figure(ratio):>7} {'' if met is None else 'yes' if met else 'NO':<4}"
        print(f"{row.label:<36}{row.unit:<9}{cells}  {rival or '-':<13}{row.bar():<16}{said}")
    print("! beside a wrong output, and not counted; ratio and bar: " + ", then ".join(OURS))


def values(engines, rows, results):
    listed = []
    for row in rows:
        for engine in engines:
            value, reason = results.value(engine.name, row), results.reason(engine.name, row.model)
            entry = {"what": row.label, "engine": engine.name, "value": value, "unit": row.unit,
                     "valid_output": results.valid(engine.name, row.model)}
            if reason:
                listed.append(entry | {"skipped": reason})
            elif value is not None:
                listed.append(entry)
    return listed


def bars(engines, rows, results):
    listed = []
    for row in rows:
        for name in OURS:
            rival, ratio, met = results.verdict(row, engines, name)
            listed.append({"what": row.label, "engine": name, "against": rival, "ratio": ratio,
                           "bar": row.bar(), "met": met})
    return listed
