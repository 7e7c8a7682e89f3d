#!/usr/bin/env bash
# Compiles the CUDA kernels alone into one shared library, for tests/gpu/kernels.py. usage: kernels.sh OUT.so
# Needs CUDA_HOME (see env.sh); nothing of Rust.
set -euo pipefail
out=$(realpath -m "$1")
cd "$(dirname "$0")/../../src/kernels/cuda"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
target=${CUDA_COMPUTE_CAP:-90}
[ "$target" != 90 ] || target=90a   # as build.rs has it
flags=(-std=c++17 -Xcompiler=-fPIC "-gencode=arch=compute_$target,code=sm_$target")
for source in *.cu; do
  "$CUDA_HOME/bin/nvcc" "${flags[@]}" -O3 -c "$source" -o "$work/$source.o"
done
for source in *.cpp; do
  "$CUDA_HOME/bin/nvcc" "${flags[@]}" -O1 -Xcompiler=-w -DNDEBUG -DNV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING -c "$source" -o "$work/$source.o"
done
mkdir -p "$(dirname "$out")"
g++ -shared -o "$out" "$work"/*.o -L"$CUDA_HOME/lib64" -L"$CUDA_HOME/lib" -L"$CUDA_HOME/lib/stubs" -lcublasLt -lcudart_static -lrt -ldl -lpthread
