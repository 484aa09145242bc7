#!/usr/bin/env python3
"""Runs the stand-in's tests of itself and checks which of them fail.
  stand_in_test.py PROGRAM"""
import subprocess
import sys

WANTED = ["ok     Plain.Holds", "FAILED Plain.GoesOnBehindAnExpectation", "went on", "as said",
          "FAILED Plain.StopsAtAnAssertion", "case 7", "ok     Both/Twice.SeesItsParameter/a",
          "ok     Both/Twice.SeesItsParameter/b", "ok     Both/Twice.FailsForOne/a",
          "FAILED Both/Twice.FailsForOne/b", "7 tests, 3 failed"]


def main():
    everything = subprocess.run([sys.argv[1]], capture_output=True, text=True, check=False)
    one = subprocess.run([sys.argv[1], "Plain.Holds"], capture_output=True, text=True, check=False)
    none = subprocess.run([sys.argv[1], "Nothing"], capture_output=True, text=True, check=False)
    problems = [f"not printed: {text}" for text in WANTED if text not in everything.stdout]
    if "must not be printed" in everything.stdout:
        problems.append("a test went on behind a fatal failure")
    codes = (everything.returncode, one.returncode, none.returncode)
    if codes != (1, 0, 1):
        problems.append(f"exit statuses {codes}, not (1, 0, 1)")
    print("\n".join(problems) or "as it should be")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
