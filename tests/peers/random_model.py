#!/usr/bin/env python3
"""Writes a Llama of 1B parameters in Q4_0 with seeded random weights: speed only, no sense.

    random_model.py TOKENIZER_FROM.gguf OUT.gguf

The tokenizer is that of the first file, so that every engine loads the result. The blocks are made
as bytes: quantising a billion floats would take minutes.
"""
import sys

import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

LAYERS, HIDDEN, HEADS, KV_HEADS, FFN, CONTEXT = 16, 2048, 32, 8, 8192, 8192
BLOCK = numpy.dtype([("scale", "<f2"), ("quants", "u1", 16)])  # 32 weights: scale * (q - 8)
QUANT_SPREAD = 4.6  # standard deviation of q - 8 for uniform q in 0..15


def q4_0(rng, rows, columns):
    """Weights whose products with inputs of variance 1 have a variance of about 1."""
    blocks = numpy.empty((rows, columns // 32), BLOCK)
    blocks["scale"] = rng.uniform(0.8, 1.2, blocks.shape) / (QUANT_SPREAD * columns**0.5)
    blocks["quants"] = rng.integers(0, 256, (*blocks.shape, 16), numpy.uint8)
    return blocks.view(numpy.uint8).reshape(rows, -1)


def copy_tokenizer(reader, writer):
    """Also returns the number of tokens."""
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub_type)
    return len(reader.fields["tokenizer.ggml.tokens"].data)


def describe(writer, tokens):
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(tokens)
    writer.add_file_type(2)  # mostly Q4_0
    writer.add_quantization_version(2)


def add_weights(writer, tokens):
    """Embeddings are tied, as in Llama 3.2 1B."""
    rng = numpy.random.default_rng(1)
    kv = HIDDEN // HEADS * KV_HEADS
    shapes = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN),
              "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (FFN, HIDDEN), "ffn_up": (FFN, HIDDEN),
              "ffn_down": (HIDDEN, FFN)}
    ones = numpy.ones(HIDDEN, numpy.float32)
    matrices = {"token_embd": (tokens, HIDDEN)}
    norms = ["output_norm"]
    for layer in range(LAYERS):
        matrices |= {f"blk.{layer}.{name}": shape for name, shape in shapes.items()}
        norms += [f"blk.{layer}.attn_norm", f"blk.{layer}.ffn_norm"]
    for name, shape in matrices.items():
        writer.add_tensor(name + ".weight", q4_0(rng, *shape), raw_dtype=GGMLQuantizationType.Q4_0)
    for name in norms:
        writer.add_tensor(name + ".weight", ones)


def main():
    source, target = sys.argv[1:]
    writer = GGUFWriter(target, "llama")
    tokens = copy_tokenizer(GGUFReader(source), writer)
    describe(writer, tokens)
    add_weights(writer, tokens)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
