#!/usr/bin/env python3
"""A metric program: judges generated reviews, 1 for positive and 0 for negative.

    python3 judge.py data/train.jsonl < samples.jsonl

It fits a logistic regression on words and pairs of words of the training split (Python's own library is
all it needs), says on stderr how well it judges a tenth of the rows that it was not fitted on, and then
answers a line for each line of its input: an object with `prompt` and `output`.
"""

import json
import math
import random
import re
import sys

EPOCHS = 8
RATE = 0.25
DECAY = 1e-5


def features(text):
    """Words and pairs of neighbouring words, each once."""
    words = re.findall(r"[a-z']+", text.lower())
    return set(words) | {f"{one} {two}" for one, two in zip(words, words[1:])}


def probability(weights, found):
    total = sum(weights.get(one, 0.0) for one in found) + weights[""]
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, total / math.sqrt(len(found) + 1)))))


def fit(rows):
    """Weights by stochastic gradient descent; the order is seeded, so the judge is always the same."""
    weights = {"": 0.0}
    order = random.Random(7)
    rows = list(rows)
    for epoch in range(EPOCHS):
        order.shuffle(rows)
        rate = RATE * (1.0 - epoch / EPOCHS)
        for found, label in rows:
            step = rate * (label - probability(weights, found))
            weights[""] += step
            for one in found:
                weights[one] = weights.get(one, 0.0) * (1.0 - DECAY) + step
    return weights


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = [(features(row["text"]), float(row["positive"])) for row in rows]
    held_out = rows[::10]
    weights = fit(row for number, row in enumerate(rows) if number % 10)
    right = sum((probability(weights, found) > 0.5) == (label > 0.5) for found, label in held_out)
    print(f"fitted on {len(rows) - len(held_out)} reviews, right about {right / len(held_out):.1%} "
          f"of {len(held_out)} others", file=sys.stderr)
    for line in sys.stdin:
        sample = json.loads(line)
        text = sample["prompt"] + sample["output"]
        print(int(probability(weights, features(text)) > 0.5), flush=True)


if __name__ == "__main__":
    main()
