#!/usr/bin/env python3
"""Writes the golden files tokenizer_*.txt with independent tokenizers.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 protobuf gguf jinja2
    tokenizer_oracle.py --models FOLDER --data FOLDER

FOLDER of models holds SmolLM2-135M-Instruct.Q4_1.gguf, gemma-3-270m-q4_k_m.gguf and
all-MiniLM-L6-v2/tokenizer.json; that of data xquad.en.json and blns.json. Files written, all of
lines of fields between spaces, texts in hex ("-" = empty):

  tokenizer_small_<name>.txt  a small vocabulary trained on xquad: "S key value",
                              "T type score text" by id, "M merge"
  tokenizer_ids.txt           "oracle text id id ..." for tokenizer_snippets.py
  tokenizer_digests.txt       "oracle set texts ids digest" for xquad, blns and random text
  tokenizer_chat.txt          see tokenizer_chat_oracle.py
"""
import argparse
import json
import pathlib
import re

import sentencepiece
from gguf import GGUFReader
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, trainers)

import tokenizer_chat_oracle
from tokenizer_snippets import SNIPPETS

HERE = pathlib.Path(__file__).resolve().parent
NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6
SPACE = "\u2581"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def hexed(text):
    return text.encode().hex() or "-"


def json_strings(path, keys=None):
    """The string values of `keys` (None: all strings) in the order of the file."""
    text = path.read_text()
    pattern = r'("(?:[^"\\]|\\.)*")'
    if keys:
        pattern = '"(?:' + "|".join(keys) + r')"\s*:\s*' + pattern
    return [json.loads(m) for m in re.findall(pattern, text)]


def random_texts():
    """256 texts of 4 KiB or a little more; tokenizer_golden.cc has the same generator."""
    state, texts = 1, []

    def draw(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % n

    for _ in range(256):
        out, size = [], 0
        while size < 4096:
            kind = draw(8)
            if kind < 3:
                c = 32 + draw(95)
            elif kind < 4:
                c = [32, 10, 9, 13, 39, 48, 0x3000, 0xA0][draw(8)]
            else:
                c = draw([0x80, 0x800, 0x10000, 0x110000][kind - 4])
            if 0xD800 <= c < 0xE000:
                continue
            out.append(chr(c))
            size += len(chr(c).encode())
        texts.append("".join(out))
    return texts


def digest(lists):
    h = 0xCBF29CE484222325
    for ids in lists:
        for i in [len(ids)] + ids:
            h = ((h ^ i) * 0x100000001B3) % 2**64
    return f"{h:016x}"


# ---- oracles: lists of texts -> lists of ids ------------------------------------------------------

def plain(tok):
    tok.encode_special_tokens = True
    return lambda texts: [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]


def gguf_vocabulary(path):
    reader = GGUFReader(path)
    get = lambda key: reader.fields["tokenizer." + key].contents() if "tokenizer." + key in reader.fields else None
    return {"tokens": get("ggml.tokens"), "types": get("ggml.token_type"), "scores": get("ggml.scores"),
            "merges": get("ggml.merges"), "template": get("chat_template")}


def add_tokens(tok, v):
    """Control and user-defined tokens of a byte-level vocabulary."""
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False)
                            for t, k in zip(v["tokens"], v["types"]) if k == CONTROL])
    tok.add_tokens([AddedToken(t, special=False, normalized=False)
                    for t, k in zip(v["tokens"], v["types"]) if k == USER])


def byte_level(v, pre):
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(v["tokens"])}, ignore_merges=pre == "llama-bpe",
                               merges=[tuple(m.split(" ")) for m in v["merges"]]))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = lambda p: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated"), rest])
    tok.pre_tokenizer = {
        "gpt-2": whole,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole]),
        "llama-bpe": split(LLAMA3),
        "qwen2": split(QWEN2),
    }[pre]
    if pre == "qwen2":
        tok.normalizer = normalizers.NFC()
    tok.decoder = decoders.ByteLevel()
    add_tokens(tok, v)
    return tok


def escaped(v):
    return [t.replace(" ", SPACE) if k in (NORMAL, USER) else t for t, k in zip(v["tokens"], v["types"])]


def generate_merges(v):
    """As transformers turns a SentencePiece BPE vocabulary into merges."""
    texts = escaped(v)
    ids = {t: i for i, t in reversed(list(enumerate(texts)))}
    score = {t: 0.0 if k == USER else s for t, k, s in zip(texts, v["types"], v["scores"]) if k in (NORMAL, USER)}
    merges = []
    for text, s in score.items():
        halves = [(text[:i], text[i:], s) for i in range(1, len(text)) if text[:i] in score and text[i:] in score]
        merges += sorted(halves, key=lambda m: (ids[m[0]], ids[m[1]]))
    merges.sort(key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)
    return ids, [m[:2] for m in merges]


def scored_hf(v):
    """Hugging Face BPE with byte fallback and merges from scores; user-defined tokens on normalised text."""
    ids, merges = generate_merges(v)
    unknown = v["tokens"][v["types"].index(UNKNOWN)] if UNKNOWN in v["types"] else "<unk>"
    tok = Tokenizer(models.BPE(vocab=ids, merges=merges, byte_fallback=True, fuse_unk=True, unk_token=unknown))
    tok.normalizer = normalizers.Replace(" ", SPACE)
    tok.add_tokens([AddedToken(t, special=False, normalized=True)
                    for t, k in zip(escaped(v), v["types"]) if k == USER])
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False)
                            for t, k in zip(v["tokens"], v["types"]) if k == CONTROL])
    return plain(tok)


def scored_sentencepiece(v, prefix, unk):
    """The sentencepiece library itself, over the same pieces."""
    proto = sentencepiece_model_pb2.ModelProto()
    for t, k, s in zip(escaped(v), v["types"], v["scores"]):
        proto.pieces.add(piece=t, score=s, type=k)
    spec = proto.trainer_spec
    spec.model_type, spec.byte_fallback = spec.BPE, True
    spec.unk_id, spec.unk_piece = unk, v["tokens"][unk]
    spec.bos_id = spec.eos_id = spec.pad_id = -1
    norm = proto.normalizer_spec
    norm.name, norm.add_dummy_prefix, norm.remove_extra_whitespaces = "identity", prefix, False
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    return lambda texts: [processor.encode(t) for t in texts]


def wordpiece(path):
    tok = Tokenizer.from_file(str(path))
    tok.no_truncation()
    tok.no_padding()
    tok.encode_special_tokens = True
    return lambda texts: [e.ids for e in tok.encode_batch(texts)]


# ---- small vocabularies -------------------------------------------------------------------------

def train_bpe(texts):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=1200, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    data = json.loads(tok.to_str())["model"]
    tokens = sorted(data["vocab"], key=data["vocab"].get)
    types = [NORMAL] * len(tokens)
    # Words that no merge makes: found by ignore_merges alone.
    extra = [("\u0120Huguenots", NORMAL), ("Kenya", NORMAL), ("<|begin|>", CONTROL), ("<|end|>", CONTROL),
             ("<tool>", USER), ("<tool><tool>", USER), ("  \n", USER)]
    return {"model": "gpt2", "tokens": tokens + [t for t, _ in extra], "types": types + [k for _, k in extra],
            "scores": None, "merges": [" ".join(m) for m in data["merges"]]}


def train_scored(texts):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=900, show_progress=False))
    vocab = json.loads(tok.to_str())["model"]["vocab"]
    user = ["\n", "\n\n", "  ", "    ", "<h1>"]
    pieces = [p for p in sorted(vocab, key=vocab.get) if p.replace(SPACE, " ") not in user]
    letters = [p for p in pieces if len(p) == 1]
    joined = [p for p in pieces if len(p) > 1]
    head = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    head += [(f"<0x{b:02X}>", BYTE) for b in range(256)]
    head += [(t, USER) for t in user]
    tokens, types = [t for t, _ in head], [k for _, k in head]
    scores = [0.0] * len(tokens)
    for rank, piece in enumerate(joined + [">" + SPACE + "</"] + letters):
        tokens.append(piece)
        types.append(NORMAL)
        scores.append(float(-rank))
    return {"model": "llama", "tokens": tokens, "types": types, "scores": scores, "merges": []}


def train_unigram(texts):
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=900, show_progress=False,
                                                           special_tokens=["<unk>"], unk_token="<unk>"))
    pieces = json.loads(tok.to_str())["model"]["vocab"]
    # Scores of single precision, as model files hold them, and no two alike.
    scores = [float(f"{s:.4f}") - i / 1048576 for i, (_, s) in enumerate(pieces)]
    return {"model": "t5", "tokens": [p for p, _ in pieces], "types": [UNKNOWN] + [NORMAL] * (len(pieces) - 1),
            "scores": [0.0] + scores[1:], "merges": []}


def unigram(v):
    pieces = [("\U0010FFFE", 0.0)] + list(zip(v["tokens"], v["scores"]))[1:]  # <unk> is no text to be found
    tok = Tokenizer(models.Unigram(pieces, unk_id=0))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    return plain(tok)


def write_vocabulary(name, v, settings):
    lines = [f"S {key} {value}" for key, value in settings.items()]
    scores = v["scores"] or [0.0] * len(v["tokens"])
    lines += [f"T {k} {s!r} {hexed(t)}" for t, k, s in zip(v["tokens"], v["types"], scores)]
    lines += [f"M {hexed(m)}" for m in v["merges"]]
    (HERE / f"tokenizer_small_{name}.txt").write_text("\n".join(lines) + "\n")


# ---- main ---------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    args = parser.parse_args()
    sets = {"xquad": json_strings(args.data / "xquad.en.json", ["context", "question"]),
            "blns": json_strings(args.data / "blns.json"), "random": random_texts()}

    bpe, scored, uni = train_bpe(sets["xquad"]), train_scored(sets["xquad"]), train_unigram(sets["xquad"])
    write_vocabulary("bpe", bpe, {"model": "gpt2"})
    write_vocabulary("scored", scored, {"model": "llama", "unknown": 0, "bos": 1, "eos": 2})
    write_vocabulary("unigram", uni, {"model": "t5", "unknown": 0})

    smollm = gguf_vocabulary(args.models / "SmolLM2-135M-Instruct.Q4_1.gguf")
    gemma = gguf_vocabulary(args.models / "gemma-3-270m-q4_k_m.gguf")
    smollm_tok = byte_level(smollm, "smollm")
    oracles = {
        "smollm2": plain(smollm_tok),
        "gemma3": scored_hf(gemma),
        "minilm": wordpiece(args.models / "all-MiniLM-L6-v2" / "tokenizer.json"),
        "small-gpt-2": plain(byte_level(bpe, "gpt-2")),
        "small-smollm": plain(byte_level(bpe, "smollm")),
        "small-llama-bpe": plain(byte_level(bpe, "llama-bpe")),
        "small-qwen2": plain(byte_level(bpe, "qwen2")),
        "small-scored": scored_sentencepiece(scored, True, 0),
        "small-unigram": unigram(uni),
    }
    ids, digests = [], []
    for name, encode in oracles.items():
        for text, row in zip(SNIPPETS, encode(SNIPPETS)):
            ids.append(" ".join([name, hexed(text)] + [str(i) for i in row]))
        for set_name, texts in sets.items():
            rows = encode(texts)
            digests.append(f"{name} {set_name} {len(texts)} {sum(map(len, rows))} {digest(rows)}")
    (HERE / "tokenizer_ids.txt").write_text("\n".join(ids) + "\n")
    (HERE / "tokenizer_digests.txt").write_text("\n".join(digests) + "\n")

    # Gemma twice: Hugging Face's conversion and the library that the vocabulary was made with.
    library = scored_sentencepiece(gemma, False, 3)
    for set_name, texts in list(sets.items()) + [("snippets", SNIPPETS)]:
        assert library(texts) == oracles["gemma3"](texts), set_name

    smollm_tok.encode_special_tokens = False
    tokenizer_chat_oracle.write(HERE / "tokenizer_chat.txt", smollm["template"],
                                lambda text: smollm_tok.encode(text, add_special_tokens=False).ids)


if __name__ == "__main__":
    main()
