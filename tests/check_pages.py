"""Opens pages of sft-run in headless Chromium, without a network, and fails on anything that they say on the console.

usage: check_pages.py PAGE.html [PAGE.html …] [--shots FOLDER]

Each page is opened light and dark; with --shots a picture of each is kept. Needs `chromium` on the path.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

# Chromium's own remarks about the machine are not the page's: a page's messages are marked CONSOLE.
CONSOLE = re.compile(r":CONSOLE[:(]\d*\)?\]\s*(.*)")
REQUESTS = re.compile(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|@import|url\(\s*["']?(?:https?:)?//""")


def look(page, dark, shot):
    """Lines that the page wrote on the console."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr", "--window-size=1280,3200", "--virtual-time-budget=4000", "--hide-scrollbars",
            f"--user-data-dir={profile}", f"--screenshot={shot}", page.resolve().as_uri(),
        ]
        if dark:
            command.append("--force-dark-mode")
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0 or not pathlib.Path(shot).exists():
        sys.exit(f"{page}: chromium failed ({done.returncode})\n{done.stderr}")
    return [match.group(1) for match in map(CONSOLE.search, done.stderr.splitlines()) if match]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path)
    arguments = parser.parse_args()
    said = []
    with tempfile.TemporaryDirectory() as scratch:
        # A page that is known to complain: a browser whose console cannot be read would pass everything.
        broken = pathlib.Path(scratch, "broken.html")
        broken.write_text("<!doctype html><script>nothing.here()</script>")
        if not look(broken, False, f"{scratch}/broken.png"):
            sys.exit("chromium does not tell what pages write on the console")
        for page in arguments.pages:
            if REQUESTS.search(page.read_text()):
                said.append(f"{page}: names an address outside")
            for dark in (False, True):
                name = f"{page.resolve().parent.name}-{page.stem}-{'dark' if dark else 'light'}.png"
                folder = arguments.shots or pathlib.Path(scratch)
                folder.mkdir(parents=True, exist_ok=True)
                said += [f"{page}: {line}" for line in look(page, dark, folder / name)]
    print("\n".join(said) or f"{len(arguments.pages)} pages, light and dark: nothing on the console")
    sys.exit(bool(said))


if __name__ == "__main__":
    main()
