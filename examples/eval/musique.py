#!/usr/bin/env python3
"""Turns a question-answering data set into questions for `kvasir eval`.

Input: a JSON list, or JSON Lines, of objects with `question`, `answers` (or `answer`) and `ctxs`, a
list of {title, text}: MuSiQue and HotpotQA as the CacheBlend repository publishes them, and
nq-open with gold or retrieved passages. A name that ends in .gz is unpacked.
Output, on standard output: one object a line with `id`, `question`, `documents` and `answers`.

    musique.py musique_s.json --items 50 --documents 8 >musique.jsonl
    kvasir eval --questions musique.jsonl

Standard library only.
"""
import argparse
import gzip
import json
import sys


def read_records(path):
    """The objects of the file, which is one JSON list or one object a line."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig") as file:
        text = file.read()
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def flat_texts(value):
    """Texts of nested lists: MuSiQue has `answers` as [["a"], ["b"]]."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, list):
        return [text for entry in value for text in flat_texts(entry)]
    return []


def to_document(ctx):
    """A passage with a title as an object, one without as its text; None if it is empty."""
    text = str(ctx.get("text") or "").strip()
    title = str(ctx.get("title") or "").strip()
    if not text:
        return None
    return {"title": title, "text": text} if title else text


def to_question(record, number, options):
    """One line of output; ValueError says what the record lacks."""
    if not isinstance(record, dict):
        raise ValueError("it is no object")
    question = str(record.get("question") or "").strip()
    if not question:
        raise ValueError("it has no question")
    line = {"id": str(record.get("id") or record.get("_id") or number), "question": question}
    documents = [to_document(ctx) for ctx in record.get("ctxs") or []]
    documents = [document for document in documents if document][:options.documents]
    if documents:
        line["documents"] = documents
    elif options.documents > 0:
        raise ValueError("it has no passages in ctxs (--documents 0 searches the collection)")
    answers = flat_texts(record.get("answers", record.get("answer")))
    if options.answers and answers:
        line["answers"] = list(dict.fromkeys(answers))
    return line


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", help="JSON list or JSON Lines, may be .gz")
    parser.add_argument("--items", type=int, metavar="N",
                        help="so many questions, from the first (default: all)")
    parser.add_argument("--skip", type=int, default=0, metavar="N",
                        help="leave out the first N, for held-out questions (default: 0)")
    parser.add_argument("--documents", type=int, default=8, metavar="N",
                        help="at most so many passages of each (default: 8); 0: none, so that the "
                             "collection is searched")
    parser.add_argument("--answers", action=argparse.BooleanOptionalAction, default=True,
                        help="whether gold answers are written (default: yes)")
    options = parser.parse_args()
    for name in ("items", "skip", "documents"):
        value = getattr(options, name)
        if value is not None and value < (1 if name == "items" else 0):
            parser.error(f"--{name} {value}: must be at least {1 if name == 'items' else 0}")
    return options


def main():
    options = parse_arguments()
    try:
        records = read_records(options.file)
    except (OSError, ValueError) as error:
        sys.exit(f"musique.py: {options.file}: {error}")
    written = 0
    for number, record in enumerate(records[options.skip:], options.skip + 1):
        if options.items is not None and written == options.items:
            break
        try:
            line = to_question(record, number, options)
        except ValueError as error:
            print(f"musique.py: record {number} is left out: {error}", file=sys.stderr)
            continue
        print(json.dumps(line, ensure_ascii=False))
        written += 1
    if written == 0:
        sys.exit(f"musique.py: {options.file}: not one question to write")


if __name__ == "__main__":
    main()
