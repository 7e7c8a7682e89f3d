#!/usr/bin/env bash
# Checks that the trained model of a quickstart run reached an exact match: check_quickstart.sh SUMMARY LEAST
set -euo pipefail
python3 - "$1" "$2" <<'PY'
import json
import sys

summary, least = json.load(open(sys.argv[1])), float(sys.argv[2])
found = []


def walk(value):
    if isinstance(value, dict):
        if isinstance(value.get("exact_match"), (int, float)):
            found.append(float(value["exact_match"]))
        for item in value.values():
            walk(item)
    elif isinstance(value, list):
        for item in value:
            walk(item)


walk(summary)
print("exact match:", found)
if not found or max(found) < least:
    sys.exit(f"the best exact match is below {least}")
PY
