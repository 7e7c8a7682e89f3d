"""kernels.py's checks on kernels that are compiled for the CPU (cuda.h)."""
import ctypes, pathlib, re, subprocess, tempfile

from launches import launches

HERE = pathlib.Path(__file__).resolve().parent
KERNELS = HERE.parent.parent.parent / "src/kernels/cuda"


def library(sources):
    source = "".join(launches((KERNELS / name).read_text()) for name in ("common.cuh", *sources))
    source = source.replace("extern __shared__ uint4 ring_memory[];", "alignas(16) static uint4 ring_memory[1 << 14];")
    source = re.sub(r"#include <cuda.*|#include \"common.cuh\"|#pragma.*", "", source)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "kernels.cpp"
        path.write_text(f'#include "{HERE}/cuda.h"\n{source}')
        command = ["g++", "-std=c++20", "-O1", "-ffp-contract=off", "-w", "-fPIC", "-shared", "-pthread", path, "-o", path.with_suffix(".so")]
        subprocess.check_call(command)
        return ctypes.CDLL(path.with_suffix(".so"))


class Missing:
    """What the library has not: products, attention."""


class Library:
    def __init__(self, there):
        self.there = there

    def __getattr__(self, name):
        return getattr(self.there, name, Missing())


def checks(*sources):
    """kernels.py's names, whose kernels are those of these files."""
    text = (HERE.parent / "kernels.py").read_text()
    text = text[: text.index("GEMM, SDPA =")]
    for cuda, cpu in (
        ('DEV = "cuda"', 'DEV = "cpu"'),
        ("ctypes.CDLL(sys.argv[1])", "ON_CPU"),
        ("torch.cuda.synchronize()", "None"),
        ("ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)", "ctypes.c_void_p(0)"),
        ("import numpy as np", ""),
    ):
        assert cuda in text, cuda
        text = text.replace(cuda, cpu)
    names = {"ON_CPU": Library(library(sources)), "__name__": "on_cpu"}
    exec(text, names)
    return names
