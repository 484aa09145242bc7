#!/usr/bin/env python3
"""What quantised activations cost llama.cpp, on the text that compute_test.cc measures Kvasir on.

    tests/peers/divergence.py --data FOLDER

FOLDER holds xquad.en.json. Mean KL over 100 of its paragraphs between llama.cpp on the model file
and llama.cpp on the same weights as fp32; its own tool counts the second half of each 512 tokens.
Kvasir's figure: KVASIR_DATA_DIR=FOLDER build/release/tests/kvasir_engine_tests
--gtest_filter='ComputeDivergence.*' (every token but each paragraph's last, fp32 KV in the base).
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from compare import model_paths
from process import PEERS

TEXTS = 100


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, type=pathlib.Path)
    options = parser.parse_args()
    here = pathlib.Path(__file__).parent
    subprocess.run([here / "prepare.sh", "llama"], check=True, stdout=subprocess.DEVNULL)
    articles = json.loads((options.data / "xquad.en.json").read_text())["data"]
    texts = [p["context"] for article in articles for p in article["paragraphs"]]
    tools, model = PEERS / "build/bin", model_paths()["Q4_1"]
    with tempfile.TemporaryDirectory(dir=PEERS) as folder:
        folder = pathlib.Path(folder)
        text, base, exact = folder / "text", folder / "base", folder / "f32.gguf"
        text.write_text("\n\n".join(texts[i * len(texts) // TEXTS] for i in range(TEXTS)))
        subprocess.run([tools / "llama-quantize", "--allow-requantize", model, exact, "F32"], check=True,
                       capture_output=True)
        perplexity = [tools / "llama-perplexity", "-f", text, "-c", "512", "-t", "2",
                      "--kl-divergence-base", base]
        subprocess.run([*perplexity, "-m", exact], check=True, capture_output=True)
        done = subprocess.run([*perplexity, "-m", model, "--kl-divergence"], check=True,
                              capture_output=True, text=True)
    found = re.search(r"Mean +KLD: +([0-9.]+)", done.stdout + done.stderr)
    if not found:
        sys.exit("divergence.py: llama-perplexity printed no mean")
    print(f"llama.cpp: mean KL {float(found[1]):.2e} nats against its own fp32")


if __name__ == "__main__":
    main()
