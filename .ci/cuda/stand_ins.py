"""Stand-ins for the CUDA libraries that the feature `cuda` links, for machines that have none.

usage: stand_ins.py OUT [REHEARSAL]     reads the symbols from the bindings of cudarc in cargo's registry.

Every function returns an error: 100 (no device) for the driver, 1 elsewhere. So a program linked with
them also starts without a driver, and finds no device. With a folder REHEARSAL, what its driver.cpp and
nccl.cpp have takes their place, and cuBLAS and cuRAND start, to do nothing.
"""
import glob
import os
import re
import subprocess
import sys
import tempfile

# cudarc's module: name for the linker, name for the loader, what its functions return.
LIBRARIES = {
    "driver": ("cuda", "libcuda.so.1", 100),
    "nvrtc": ("nvrtc", "libnvrtc.so.13", 1),
    "curand": ("curand", "libcurand.so.10", 1),
    "cublas": ("cublas", "libcublas.so.13", 1),
    "cublaslt": ("cublasLt", "libcublasLt.so.13", 1),
    "nccl": ("nccl", "libnccl.so.2", 1),
}


def symbols(text):
    names = set()
    for block in re.findall(r'extern "C" \{(.*?)\n\s*\}', text, re.S):
        names |= set(re.findall(r"\bfn\s+(\w+)\s*\(", block))
    return sorted(names)


def build(out, link, loaded, code, names, more):
    with tempfile.NamedTemporaryFile("w", suffix=".cpp") as source:
        source.write('extern "C" {\n')
        source.writelines(f"int {name}(){{return {code};}}\n" for name in names)
        source.write("}\n")
        source.flush()
        command = ["g++", "-shared", "-fPIC", "-O1", "-w", "-fno-builtin", f"-Wl,-soname,{loaded}"]
        subprocess.check_call([*command, "-o", f"{out}/{loaded}", source.name, *more])
    path = f"{out}/lib{link}.so"
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(loaded, path)


def main():
    out, rehearsal = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    rehearsed = set()
    if rehearsal:
        for source in glob.glob(f"{rehearsal}/*.cpp"):
            with open(source) as file:
                rehearsed |= set(re.findall(r"^(?:int|const char \*)\s*((?:cu|nccl)\w+)\(", file.read(), re.M))
    os.makedirs(out, exist_ok=True)
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    bindings = sorted(glob.glob(home + "/registry/src/*/cudarc-*/src"))
    if not bindings:
        sys.exit("no cudarc in cargo's registry: run `cargo fetch` first")
    for module, (link, loaded, code) in LIBRARIES.items():
        with open(f"{bindings[-1]}/{module}/sys/mod.rs") as file:
            names = symbols(file.read())
        more = []
        if rehearsal and module in ("driver", "nccl"):
            more = [f"{rehearsal}/{module}.cpp", "-std=c++17", "-pthread"]
        elif rehearsal and module in ("cublas", "curand"):
            code = 0
        build(out, link, loaded, code, [name for name in names if name not in rehearsed], more)
        print(f"{loaded}: {len(names)} symbols")


main()
