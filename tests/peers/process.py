"""Runs commands of other engines."""
import os
import pathlib
import subprocess
import tempfile
from dataclasses import dataclass

PEERS = pathlib.Path(__file__).resolve().parents[2] / "build" / "peers"


class Failed(Exception):
    """An engine did not run; the text says why."""


@dataclass
class Finished:
    out: str
    errors: str
    peak_mb: float  # of resident memory


def run(command, env=None):
    """In build/peers: some tools leave logs where they run. Paths must be absolute."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(words, stdout=out, stderr=errors, cwd=PEERS,
                                   env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(process.pid, 0)  # of this child alone, unlike getrusage
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        done = Finished(out.read().decode(errors="replace"), errors.read().decode(errors="replace"),
                        usage.ru_maxrss * 1024 / 1e6)
    if process.returncode != 0:
        last = (done.errors.strip() or done.out.strip() or "it said nothing").splitlines()[-1]
        name = pathlib.Path(words[0]).name
        raise Failed(f"{name} ended with {process.returncode}: {last[:160]}")
    return done


def why_skipped(what):
    """What prepare.sh said when it could not prepare this; None when it could."""
    file = PEERS / f"{what}.skipped"
    return file.read_text().strip() if file.exists() else None
