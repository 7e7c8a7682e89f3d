#!/usr/bin/env python3
"""Fetches the movie-review sentences of sft_sentiments.yaml and splits them, into data/ beside this file.

    python3 recipes/sft_sentiments/fetch.py

They are the 10,605 sentences with mean human ratings (-4 to 4) that come with VADER (Hutto and Gilbert
2014), taken with pip from the source package vadersentiment 3.3.2. Python's own library and pip are all
it needs. The split is by the hash of the sentence: 10% test, 5% validation.
"""

import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "vadersentiment==3.3.2"
INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
SENTENCES = "movieReviewSnippets_GroundTruth.txt"
LEXICON = "vaderSentiment/vader_lexicon.txt"
# Words that a prompt takes from a review.
OPENING = 3


def download(folder):
    """The source package as an open tar file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
               "--dest", folder, PACKAGE]
    subprocess.run(command, check=True)
    (archive,) = pathlib.Path(folder).glob("*.tar.gz")
    return tarfile.open(archive)


def member(archive, ending):
    """The bytes of the file of an archive whose name ends so; nothing is unpacked to disk."""
    (name,) = [name for name in archive.getnames() if name.endswith(ending) and "/._" not in name]
    return archive.extractfile(name).read()


def row(line):
    """A sentence with its rating, its opening words and the rest; none for the shortest."""
    _, rating, text = line.rstrip("\n").split("\t")
    words = text.lower().split()
    if len(words) < OPENING + 3:
        return None
    opening, rest = " ".join(words[:OPENING]), " " + " ".join(words[OPENING:])
    return {"text": opening + rest, "opening": opening, "rest": rest, "rating": float(rating),
            "positive": float(rating) > 0}


def split(text):
    share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
    return "test" if share < 0.10 else "validation" if share < 0.15 else "train"


def write(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        for one in rows:
            file.write(json.dumps(one, ensure_ascii=False) + "\n")
    print(f"{path}: {len(rows)} rows")


def main():
    folder = pathlib.Path(__file__).parent / "data"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        archive = download(scratch)
        inner = tarfile.open(fileobj=io.BytesIO(member(archive, INNER)))
        sentences = member(inner, SENTENCES).decode("latin-1")
        lexicon = member(archive, LEXICON).decode("utf-8")
    rows = [one for one in map(row, sentences.splitlines()) if one]
    parts = {"train": [], "validation": [], "test": []}
    for one in rows:
        parts[split(one["text"])].append(one)
    for name, part in parts.items():
        write(folder / f"{name}.jsonl", part)
    write(folder / "train_positive.jsonl", [one for one in parts["train"] if one["positive"]])
    write(folder / "validation_positive.jsonl", [one for one in parts["validation"] if one["positive"]])
    (folder / "lexicon.tsv").write_text(lexicon, encoding="utf-8")


if __name__ == "__main__":
    main()
