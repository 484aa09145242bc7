#!/usr/bin/env python3
"""Writes golden logits of a GGUF model with an implementation that shares nothing with Kvasir:
Hugging Face transformers in fp32 on weights that the gguf package dequantised.

    pip install torch transformers accelerate gguf
    python3 make_golden.py MODEL.gguf OUT.txt

For every prompt of prompts.json the file holds one block of lines:
    prompt NAME
    ids    token ids of the prompt
    top    the 20 largest logits behind the last prompt token, as id:value
    greedy 64 greedily chosen tokens as id:gap, gap = largest minus second largest logit
End-of-text tokens do not end the greedy text. Needs about 3 GB and a few minutes.
"""
import argparse
import json
import pathlib

import torch
import transformers

TOP = 20
STEPS = 64
PROMPTS = pathlib.Path(__file__).with_name("prompts.json")


def chatml(system, user):
    opening = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return f"{opening}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def gemma(system, user):
    both = f"{system}\n\n{user}" if system else user
    return f"<bos><start_of_turn>user\n{both}<end_of_turn>\n<start_of_turn>model\n"


def encode(tokenizer, prompt):
    """The ids stand in the golden file, so that the test does not depend on any tokenizer."""
    is_gemma = tokenizer.convert_tokens_to_ids("<start_of_turn>") not in (None, tokenizer.unk_token_id)
    if "chat" in prompt:
        text = (gemma if is_gemma else chatml)(*prompt["chat"])
    else:
        text = ("<bos>" if is_gemma else "") + prompt["text"]
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def run(model, ids):
    """Returns the logits behind the prompt, and (token, gap) of every greedy step."""
    out = model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
    first = logits = out.logits[0, -1]
    steps = []
    for _ in range(STEPS):
        best = logits.topk(2)
        token = int(best.indices[0])
        steps.append((token, float(best.values[0] - best.values[1])))
        out = model(torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
        logits = out.logits[0, -1]
    return first, steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    source = dict(pretrained_model_name_or_path=str(args.model.parent), gguf_file=args.model.name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float32, attn_implementation="eager").eval()
    lines = [f"# {args.model.name}; transformers {transformers.__version__}, "
             f"torch {torch.__version__.split('+')[0]}, fp32; made by make_golden.py"]
    for prompt in json.loads(PROMPTS.read_text()):
        ids = encode(tokenizer, prompt)
        logits, steps = run(model, ids)
        top = logits.topk(TOP)
        lines += [f"prompt {prompt['name']}", "ids " + " ".join(map(str, ids)),
                  "top " + " ".join(f"{i}:{v:.6g}" for i, v in zip(top.indices.tolist(), top.values.tolist())),
                  "greedy " + " ".join(f"{token}:{gap:.4g}" for token, gap in steps)]
        print(f"{prompt['name']}: {len(ids)} tokens: "
              f"{tokenizer.decode([token for token, _ in steps])[:70]!r}", flush=True)
    args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
