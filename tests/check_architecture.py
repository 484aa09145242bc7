#!/usr/bin/env python3
"""Checks what the folders promise: include directions, vendor headers, READMEs that name what
exists. Prints every violation with file and line; exit 1 if there is one."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A folder may include headers of these folders (the longest matching prefix decides).
MAY_INCLUDE = {
    "kernels/core": ["kernels/core"],
    "kernels/cpu": ["kernels/core", "kernels/cpu"],
    "kernels/cuda": ["kernels/core", "kernels/cuda"],
    "engine/model": ["kernels/core", "engine/model"],
    "engine/tokenizer": ["kernels/core", "engine/model", "engine/tokenizer"],
    "engine": ["kernels/core", "engine"],
    "cache": ["kernels/core", "cache"],
    "retrieval": ["kernels/core", "engine/model", "engine/tokenizer", "retrieval"],
    "service": ["kernels", "engine", "cache", "retrieval", "service"],
}
# A vendor's headers appear only in its folder.
VENDORS = {
    r"rocksdb/|xxhash": ["cache"],
    r"faiss/|omp\.h|libxml/|md4c": ["retrieval"],
    r"boost/|spdlog/|CLI/|toml\+\+|toml\.hpp": ["service"],
    r"pcre2|utf8proc": ["engine/tokenizer"],
    r"cuda|cublas": ["kernels/cuda"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
TOP_LEVEL = {"CMakeLists.txt", "CMakePresets.json", "README.md", "LICENSE", "CONTRIBUTING.md",
             "CHANGELOG.md", "service", "cache", "retrieval", "engine", "kernels", "tests",
             "examples", "cmake", ".ci", ".clang-format", ".clang-tidy", ".gitignore"}


def tracked():
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [pathlib.PurePosixPath(line) for line in out.stdout.splitlines()
            if (ROOT / line).exists()]


def owner(path):
    text = str(path.parent)
    fits = [f for f in MAY_INCLUDE if text == f or text.startswith(f + "/")]
    return max(fits, key=len) if fits else None


def check_includes(path, complain):
    folder = owner(path)
    if folder is None:
        return
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quoted, name = match.group(1) == '"', match.group(2)
        if quoted:
            if not any(name == f or name.startswith(f + "/") for f in MAY_INCLUDE[folder]):
                complain(f"{path}:{number}: {folder}/ may not include {name}")
            elif not (ROOT / name).exists():
                complain(f"{path}:{number}: no such header: {name}")
        for pattern, homes in VENDORS.items():
            if re.match(pattern, name) and not quoted and folder not in homes:
                complain(f"{path}:{number}: <{name}> belongs to {', '.join(homes)}")


def check_readme(path, names, complain):
    """Every `path/like.this` and link target in a README exists; folder READMEs stay short."""
    text = (ROOT / path).read_text()
    folder = (ROOT / path).parent
    if folder != ROOT and text.count("\n") > 120:
        complain(f"{path}: over 120 lines")
    for number, line in enumerate(text.splitlines(), 1):
        spots = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", line)
        spots += [s for s in re.findall(r"`([\w.+-]+(?:/[\w.+{},*-]*)+)`", line)
                  if s.split("/")[0] in TOP_LEVEL]
        for spot in spots:
            spot = spot.rstrip("/")
            if any(c in spot for c in "{*"):
                options = re.findall(r"\{([^}]*)\}", spot)
                variants = [spot]
                for group in options:
                    variants = [v.replace("{" + group + "}", o, 1)
                                for v in variants for o in group.split(",")]
                found = all(any(ROOT.glob(v)) or any(folder.glob(v)) for v in variants)
            else:
                found = (ROOT / spot).exists() or (folder / spot).exists()
            if not found:
                complain(f"{path}:{number}: names {spot}, which does not exist")
        for name in re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]*)+)`", line):
            if name not in names:
                complain(f"{path}:{number}: names type {name}, which no source file holds")


def main():
    problems = []
    files = tracked()
    sources = [p for p in files if p.suffix in {".h", ".cc", ".cu", ".cuh"}]
    names = set()
    for path in sources:
        names.update(re.findall(r"\b[A-Z]\w+", (ROOT / path).read_text()))
    for path in sources:
        check_includes(path, problems.append)
    for path in files:
        if path.name == "README.md":
            check_readme(path, names, problems.append)
        if path.parts[0] not in TOP_LEVEL:
            problems.append(f"{path}: the top level is fixed")
    for problem in problems:
        print(problem)
    print(f"architecture: {len(sources)} source files, {len(problems)} violations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
