"""Time and memory that the program takes to refuse recipes made to hurt.

python3 tests/bench/hostile_recipes.py target/release/sft-run
Exits with 1 if one takes a second or 200 MB, or is not refused with exit code 2.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

SECONDS, MEGABYTES = 1.0, 200.0


def bomb(levels):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        below = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{below}]")
    return "\n".join(lines).encode()


# Made when needed: a child counts the memory that its parent had when it was started.
RECIPES = {
    "10 MB of keys": lambda: (b"key%07d: 1\n" % at for at in range(650_000)),
    "10 MB in one text": lambda: (b"a: ", *[b"x" * 1000] * 10_000),
    "4 MB of keys": lambda: (b"key%06d: 1\n" % at for at in range(340_000)),
    "10,000 lists inside each other": lambda: b"[" * 10_000,
    "10,000 mappings inside each other": lambda: b"a: " + b"{a: " * 10_000,
    "2,800 lines, each deeper": lambda: (b" " * at + b"a:\n" for at in range(2_800)),
    "aliases for 10 to the 12th": lambda: bomb(12),
    "one text, named 100,000 times": lambda: b"a: &a " + b"x" * (1 << 20) + b"\nb:\n" + b"- *a\n" * 100_000,
    "interpolations for 10 to the 12th": lambda: b"\n".join(
        [b"a0: xxxxxxxxxx"] + [b"a%d: '%s'" % (at, b"${a%d}" % (at - 1) * 10) for at in range(1, 12)]
    ),
    "not UTF-8": lambda: b"a: 1\nb: \xff\xfe\n" * 1000,
    "a template of 10 to the 8th steps": lambda: b"name: '${{ range(10000) | map(\"string\") | join | length }}${{ "
    + b"range(10000) | list + " * 10_000 + b"[] }}'\n",
    "a mistake in a line of 3 MB": lambda: (b"{name: '", *[b"x" * 1000] * 3_000, b"', bogus: 1}\n"),
    "a chain of 100,000 operators": lambda: b"a: '${{ 1" + b" + 1" * 100_000 + b" }}'\n",
    "a template of 10,000 brackets": lambda: b"a: '${{ " + b"(" * 10_000 + b" }}'\n",
}


def main():
    program = sys.argv[1]
    print("| recipe | bytes | seconds | MB | first line |\n|---|---|---|---|---|")
    failed = False
    for name, make in RECIPES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "recipe.yaml")
            with path.open("wb") as file:
                file.writelines([made] if isinstance(made := make(), bytes) else made)
            del made
            size = path.stat().st_size
            start = time.perf_counter()
            child = subprocess.Popen(
                [program, "validate", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            told = child.stderr.read().decode()
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.perf_counter() - start
        megabytes = usage.ru_maxrss / 1000
        code = os.waitstatus_to_exitcode(status)
        failed |= seconds >= SECONDS or megabytes >= MEGABYTES or code != 2
        words = next((line for line in told.splitlines() if "::" in line), f"exit code {code}")
        print(f"| {name} | {size:,} | {seconds:.3f} | {megabytes:.0f} | `{words.strip()}` |")
    sys.exit(failed)


main()
