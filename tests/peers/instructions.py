#!/usr/bin/env python3
"""Instructions that each hot kernel takes for a fixed piece of work, against those on record.

    tests/peers/instructions.py [--record] [--build build/release]

Counts them with callgrind, so that a regression shows however noisy the machine is, and compares
with tests/peers/instructions.json; fails where a kernel takes 3 % more. callgrind knows no AVX-512:
the AVX2 and scalar tables are counted, whose loops are the same templates. Counts belong to one
compiler (Debian 12's GCC).
"""
import argparse
import collections
import json
import pathlib
import re
import shutil
import subprocess
import sys

RECORD = pathlib.Path(__file__).parent / "instructions.json"
LEAST = 20000  # instructions of a kernel that is worth a line
# What prepares the work, by the function's name without its template's and its own arguments.
SKIP = re.compile(r"^Pack|Source|Floats|^Run$|^Count|mersenne|RopeTable|RotationCache")
LINE = re.compile(r"^\s*([0-9,]+) \(\s*[0-9.]+%\)\s+\S*?:(.*?)( \[.*)?$")


def short(name):
    """Without namespaces, result and arguments."""
    name = name.replace("kvasir::(anonymous namespace)::", "").replace("kvasir::", "")
    depth, out = 0, ""
    for char in name:
        depth += char == "<"
        if char == "(" and depth == 0:
            break
        out += char
        depth -= char == ">"
    return out.removeprefix("void ").removeprefix("auto ").strip()


def count(binary, isa, compute, folder):
    out = folder / f"{isa}.{compute}.callgrind"
    subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", binary, isa, compute],
                   check=True, capture_output=True)
    report = subprocess.run(["callgrind_annotate", "--threshold=99.99", out], check=True,
                            capture_output=True, text=True).stdout
    totals = collections.Counter()
    for line in report.splitlines():
        match = LINE.match(line)
        if not match or "kvasir" not in match[2]:
            continue
        name = short(match[2])
        if not SKIP.search(name.split("<")[0]) and "PackMatrix(" not in name:
            totals[name] += int(match[1].replace(",", ""))
    return {name: n for name, n in totals.items() if n >= LEAST}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--build", default="build/release")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("instructions.py: install valgrind")
    subprocess.run(["cmake", "--build", options.build, "--target", "kvasir_kernel_count"], check=True,
                   capture_output=True)
    folder = pathlib.Path(options.build)
    counts = {f"{isa} {compute}": count(folder / "kernels/cpu/kvasir_kernel_count", isa, compute, folder)
              for isa in ("avx2", "scalar") for compute in ("int8", "f32")}
    if options.record:
        RECORD.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")
        print(f"recorded {sum(map(len, counts.values()))} counts in {RECORD}")
        return
    known, worse = json.loads(RECORD.read_text()), []
    for table, kernels in sorted(counts.items()):
        for name, n in sorted(kernels.items()):
            before = known.get(table, {}).get(name)
            ratio = n / before if before else float("nan")
            print(f"{table:12s} {n:12,d}  {ratio:6.3f}  {name[:90]}")
            if ratio > 1.03:
                worse.append(f"{table} {name}")
    if worse:
        sys.exit("instructions.py: more than 3 % above the record: " + "; ".join(worse))


if __name__ == "__main__":
    main()
