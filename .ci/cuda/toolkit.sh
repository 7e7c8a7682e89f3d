#!/usr/bin/env bash
# Lays out what the feature `cuda` needs to be COMPILED and LINKED on a machine without a GPU: CUDA 13.0's nvcc and headers,
# the headers of cuBLAS, cuDNN and cudnn-frontend (from PyPI's wheels), and link-time stand-ins for the libraries.
# With a whole CUDA 13 toolkit only the headers of cuDNN and cudnn-frontend may be missing: set CUDNN_PATH and CUDNN_FRONTEND_PATH.
# usage: .ci/cuda/toolkit.sh [DEST=$HOME/.cuda-13.0]
# then:  . .ci/cuda/env.sh [DEST] && cargo build --release --features cuda
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dest=${1:-$HOME/.cuda-13.0}
if [ -e "$dest/.complete" ]; then
  echo "the toolkit is at $dest"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# cudnn-frontend has one wheel per Python version; its headers are the same in each.
wheels() { python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d "$work" "$@"; }
wheels nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 \
  nvidia-cuda-cccl==13.0.85
for wheel in "$work"/*.whl; do
  python3 -m zipfile -e "$wheel" "$work/x"
  rm "$wheel"
done
# Of these only the headers: the libraries are some 800 MB, and are needed to run, not to build.
wheels nvidia-cublas==13.1.0.3 nvidia-cudnn-cu13==9.19.0.56
python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 -d "$work" \
  nvidia-cudnn-frontend==1.18.0
mkdir -p "$dest"
cp -a "$work/x/nvidia/cu13/." "$dest/"
python3 - "$work" "$dest/include" <<'PYTHON'
import glob, os, sys, zipfile
work, include = sys.argv[1:]
for wheel in glob.glob(work + "/*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            before, mark, below = name.rpartition("include/") if name.count("include/") == 1 else name.partition("include/")
            if not mark or not below or below.endswith("/") or not below.endswith((".h", ".hpp", ".inl", ".cuh")):
                continue
            to = os.path.join(include, below)
            os.makedirs(os.path.dirname(to), exist_ok=True)
            with open(to, "wb") as file:
                file.write(archive.read(name))
PYTHON
chmod -R a+rX "$dest"
chmod +x "$dest"/bin/* "$dest"/nvvm/bin/*
ln -sfn lib "$dest/lib64"
ln -sfn libcudart.so.13 "$dest/lib/libcudart.so"
cargo fetch --quiet --locked --manifest-path "$here/../../Cargo.toml"
python3 "$here/stand_ins.py" "$dest/lib/stubs"
touch "$dest/.complete"
"$dest/bin/nvcc" --version | tail -2
