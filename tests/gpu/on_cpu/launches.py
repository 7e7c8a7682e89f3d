"""Launches of CUDA kernels as C++ that cuda.h runs on a CPU."""
import re


def closing(text, at, pair):
    """Where the bracket at `at` closes."""
    depth = 0
    while True:
        depth += (text[at] == pair[0]) - (text[at] == pair[1])
        if depth == 0:
            return at
        at += 1


def launches(text):
    """kernel<T><<<grid, threads, …>>>(…) as calls of launch."""
    out, begin = "", 0
    while (at := text.find("<<<", begin)) >= 0:
        name = re.search(r"[\w:]+(<[^<>;]*>)?$", text[:at]).start()
        end = text.index(">>>", at)
        parts, depth, part = [], 0, ""
        for character in text[at + 3 : end]:
            depth += (character in "(<") - (character in ")>")
            if character == "," and depth == 0:
                parts, part = parts + [part], ""
            else:
                part += character
        parts.append(part)
        last = closing(text, text.index("(", end), "()")
        out += f"{text[begin:name]}launch(dim3({parts[0]}), dim3({parts[1]}), [&] {{ {text[name:at]}{text[end + 3 : last + 1]}; }})"
        begin = last + 1
    return out + text[begin:]
