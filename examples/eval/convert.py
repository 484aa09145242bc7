#!/usr/bin/env python3
"""Turns a question-answering data set into questions for `kvasir eval`.

Input, told apart by its shape; a name that ends in .gz is unpacked:
  - a JSON list, or JSON Lines, of objects with `question`, `answers` (or `answer`) and `ctxs`, a
    list of {title, text}: MuSiQue and HotpotQA as the CacheBlend repository publishes them, and
    nq-open with gold or retrieved passages;
  - SQuAD's JSON (`data`, `paragraphs`, `context`, `qas`), which XQuAD shares.
Output, on standard output: one object a line with `id`, `question`, `documents` and `answers`.

    convert.py musique_dev.json --items 50 --documents 8 >musique.jsonl
    convert.py nq-open-oracle.jsonl.gz --items 200 --documents 8 --distractors >nq.jsonl
    kvasir eval --questions musique.jsonl

Standard library only.
"""
import argparse
import gzip
import json
import random
import sys


def squad_records(data):
    """One record a question; its paragraph is its only passage."""
    for article in data:
        for paragraph in article["paragraphs"]:
            passage = {"title": article.get("title"), "text": paragraph["context"]}
            for asked in paragraph["qas"]:
                answers = [answer["text"] for answer in asked.get("answers", [])]
                yield {"id": asked.get("id"), "question": asked["question"], "answers": answers,
                       "ctxs": [passage]}


def read_records(path):
    """The records of the file."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig") as file:
        text = file.read()
    if text.lstrip().startswith("["):
        return json.loads(text)
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        first = json.loads(lines[0]) if lines else {}
    except ValueError:  # one object over many lines
        first, lines = json.loads(text), []
    if isinstance(first, dict) and isinstance(first.get("data"), list):
        return list(squad_records(first["data"]))
    return [json.loads(line) for line in lines]


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


def documents_of(record):
    documents = [to_document(ctx) for ctx in record.get("ctxs") or []]
    return [document for document in documents if document]


def add_distractors(documents, records, rng, wanted):
    """Fills up with passages of other records, drawn by the seed, and shuffles."""
    documents = list(documents)
    for _ in range(20 * wanted):
        if len(documents) >= wanted:
            break
        other = rng.choice(records)
        drawn = documents_of(other)[:1] if isinstance(other, dict) else []
        documents += [document for document in drawn if document not in documents]
    rng.shuffle(documents)
    return documents


def to_question(record, number, records, rng, options):
    """One line of output; ValueError says what the record lacks."""
    if not isinstance(record, dict):
        raise ValueError("it is no object")
    question = str(record.get("question") or "").strip()
    if not question:
        raise ValueError("it has no question")
    line = {"id": str(record.get("id") or record.get("_id") or number), "question": question}
    documents = documents_of(record)[:options.documents]
    if documents and options.distractors:
        documents = add_distractors(documents, records, rng, options.documents)
    if documents:
        line["documents"] = documents
    elif options.documents > 0:
        raise ValueError("it has no passages in ctxs (--documents 0 searches the collection)")
    answers = flat_texts(record.get("answers", record.get("answer")))
    if options.answers and answers:
        line["answers"] = list(dict.fromkeys(answers))
    return line


PRIMER_CHARACTERS = 1100  # of a passage: about a chunk of 256 tokens


def write_primer(path, records, passages):
    """The beginnings of the first passages of so many last records, blank lines between them."""
    texts = []
    for record in reversed(records):
        documents = documents_of(record)[:1]
        if len(texts) < passages and documents:
            document = documents[0]
            text = document if isinstance(document, str) else document["text"]
            text = " ".join(text.split())[:PRIMER_CHARACTERS]
            texts.append(text.rsplit(" ", 1)[0])
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n\n".join(texts) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", help="JSON list, JSON Lines or SQuAD's JSON, may be .gz")
    parser.add_argument("--items", type=int, metavar="N",
                        help="so many questions, from the first (default: all)")
    parser.add_argument("--skip", type=int, default=0, metavar="N",
                        help="leave out the first N, for held-out questions (default: 0)")
    parser.add_argument("--documents", type=int, default=8, metavar="N",
                        help="at most so many passages of each (default: 8); 0: none, so that the "
                             "collection is searched")
    parser.add_argument("--distractors", action="store_true",
                        help="fill up to --documents with passages of other records, in random "
                             "order")
    parser.add_argument("--seed", type=int, default=1, help="of --distractors (default: 1)")
    parser.add_argument("--answers", action=argparse.BooleanOptionalAction, default=True,
                        help="whether gold answers are written (default: yes)")
    parser.add_argument("--primer", metavar="FILE",
                        help="write passages of the last records there, as text for "
                             "collection.primer; ask about the first ones only")
    parser.add_argument("--primer-passages", type=int, default=7, metavar="N",
                        help="so many passages (default: 7)")
    options = parser.parse_args()
    for name, least in (("items", 1), ("skip", 0), ("documents", 0), ("primer_passages", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} {value}: must be at least {least}")
    return options


def main():
    options = parse_arguments()
    try:
        records = read_records(options.file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"convert.py: {options.file}: {error!r}")
    rng = random.Random(options.seed)
    written = 0
    for number, record in enumerate(records[options.skip:], options.skip + 1):
        if options.items is not None and written == options.items:
            break
        try:
            line = to_question(record, number, records, rng, options)
        except ValueError as error:
            print(f"convert.py: record {number} is left out: {error}", file=sys.stderr)
            continue
        print(json.dumps(line, ensure_ascii=False))
        written += 1
    if written == 0:
        sys.exit(f"convert.py: {options.file}: not one question to write")
    if options.primer:
        write_primer(options.primer, records, options.primer_passages)


if __name__ == "__main__":
    main()
