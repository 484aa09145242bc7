#!/usr/bin/env python3
"""What the CUDA compiler made of the kernels, read from what the build keeps: no kernel spills
registers or has a stack frame, on any architecture (OBJECT.ptxas, what ptxas -v said); in the PTX
inside the library every kernel lets the next one begin, waits for the one before and has written
nothing by then (products of few rows have asked for their first weights), products are on matrix
units, keys come by asynchronous copies, and what is streamed comes in 16-byte loads.
  compiled_kernels.py LIBRARY OBJECT...
Exit 1 with every violation in a line. Without arguments: says why it is skipped, exit 77."""
import pathlib
import re
import sys

ARCHITECTURES = {"sm_80", "sm_90a"}

# Kernels (a pattern of their mangled names), what their PTX must hold, at least so often.
WANTED = [
    ("MmaKernel", r"mma\.sync\.aligned\.m16n8k16\S*bf16", 32),
    ("MmaKernel.*Bf16Tiles", r"ldmatrix\.sync\.aligned\.m8n8\.x4\.trans", 8),
    ("MmaKernel.*Int8Tiles", r"ld\.shared\.v4", 8),
    ("MmaKernel", r"cp\.async\.cg\.shared\.global", 2),
    ("GemvKernel", r"ld\.global\.L1::no_allocate\.v4", 8),
    ("NormKernel", r"ld\.global\S*\.v4", 1),
    ("ActivateKernel", r"ld\.global\S*\.v4", 1),
    ("LoadKernel.*ELi8E", r"ld\.global\S*\.v4", 4),
    ("LoadKernel.*ELi8E", r"st\.global\S*\.v4", 4),
    ("AppendKernelILi8E", r"ld\.global\S*\.v4", 8),
    ("AppendKernelILi8E", r"st\.global\S*\.v4", 4),
    ("RoundKernel", r"ld\.global\S*\.v4", 1),
]


def is_narrow(name):
    """GemvKernel<format, slices, rows>: one slice a lane, of a format of less than 32 bits: its loads
    are shorter by design."""
    found = re.search(r"GemvKernelIL\w*?E(\d+)ELi(\d+)ELi(\d+)E", name)
    return bool(found) and found.group(2) == "1" and found.group(1) != "0"


def short(name):
    """The kernel and its template arguments, of a mangled name."""
    found = re.search(r"([A-Z][a-z0-9]*Kernel)(\w*?)(?:EEv|E?v)", name)
    return "<".join(filter(None, found.groups())) + ">" * bool(found.group(2)) if found else name


def spills(log):
    """(architecture, kernel, stack bytes, bytes of spills) of every kernel that ptxas names."""
    entry = None
    for line in log.splitlines():
        named = re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line)
        if named:
            entry = named.groups()
        sizes = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill", line)
        if sizes and entry:
            stack, stores, loads = map(int, sizes.groups())
            yield entry[1], entry[0], stack, stores + loads
            entry = None


def check_registers(objects, complain):
    checked = set()
    for name in objects:
        log = pathlib.Path(name + ".ptxas")
        if not log.exists():
            complain(f"{log} is missing: build again")
            continue
        for architecture, kernel, stack, spilled in spills(log.read_text()):
            checked.add((architecture, kernel))
            if stack or spilled:
                complain(f"{short(kernel)} on {architecture}: {stack} bytes of stack, "
                         f"{spilled} of spills")
    for architecture in ARCHITECTURES - {a for a, _ in checked}:
        complain(f"no kernel was compiled for {architecture}")
    return len(checked)


def check_order(name, body, complain):
    """Kernels of a graph overlap (platform.cuh, AwaitEarlierKernels)."""
    before, waits, _ = body.partition("griddepcontrol.wait")
    if not waits:
        complain(f"{short(name)}: does not wait for earlier kernels")
    if re.search(r"\bst\.global|\bcp\.async|\bred\.global|\batom\.global", before):
        complain(f"{short(name)}: writes before it has waited for earlier kernels")
    if "GemvKernel" in name and not re.search(r"\bld\.global", before):
        complain(f"{short(name)}: asks for weights only when it has waited for earlier kernels")
    if "griddepcontrol.launch_dependents" not in body:
        complain(f"{short(name)}: never lets the next kernel begin")


def check_ptx(library, complain):
    image = pathlib.Path(library).read_bytes()
    bodies = [b.decode(errors="replace") for b in re.split(rb"(?=\.entry )", image)[1:]]
    names = [body.split("(", 1)[0].split()[-1] for body in bodies]
    for name, body in zip(names, bodies):
        if "Kernel" in name:  # the library's own, not cuBLAS's
            check_order(name, body, complain)
    for kernel, pattern, least in WANTED:
        named = 0
        for name, body in zip(names, bodies):
            if not re.search(kernel, name) or is_narrow(name):
                continue
            named += 1
            count = len(re.findall(pattern, body))
            if count < least:
                complain(f"{short(name)}: {count} times {pattern}, {least} wanted")
        if named == 0:
            complain(f"no PTX of {kernel} in {library}")
    return len(bodies)


def main():
    if len(sys.argv) < 2:
        print("skipped: no kernels were compiled (no nvcc, or KVASIR_CUDA=OFF)")
        return 77
    problems = []
    compiled = check_registers([a for a in sys.argv[2:] if a.endswith(".cu.o")], problems.append)
    in_ptx = check_ptx(sys.argv[1], problems.append)
    for problem in problems:
        print(problem)
    print(f"{compiled} kernels compiled, {in_ptx} in PTX, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
