#!/usr/bin/env python3
"""Writes embedding_minilm.txt: what sentence-transformers makes of embedding_sentences.txt.

usage: make_embedding_golden.py MODEL_FOLDER   (config.json, model.safetensors, tokenizer.json,
                                                vocab.txt of all-MiniLM-L6-v2)
needs: pip install sentence-transformers

One line a sentence: 384 little-endian float16 values, base64. Run once; the output is committed, so
that the tests need no Python. The sentences are from the SQLite manual (public domain) and our own.
"""
import base64
import pathlib
import sys

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

HERE = pathlib.Path(__file__).resolve().parent


def main():
    folder = sys.argv[1]
    encoder = modules.Transformer(folder, max_seq_length=256)
    pooling = modules.Pooling(encoder.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[encoder, pooling, modules.Normalize()], device="cpu")
    sentences = (HERE / "embedding_sentences.txt").read_text(encoding="utf-8").split("\n")[:-1]
    vectors = model.encode(sentences, batch_size=16, convert_to_numpy=True).astype("<f2")
    assert vectors.shape == (200, 384), vectors.shape
    lines = [base64.b64encode(vector.tobytes()).decode() for vector in vectors]
    (HERE / "embedding_minilm.txt").write_text("\n".join(lines) + "\n")
    print("norms", np.linalg.norm(vectors.astype(np.float32), axis=1).min(), "...")


if __name__ == "__main__":
    main()
