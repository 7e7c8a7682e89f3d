# To be sourced: what building the feature `cuda` with the toolkit of toolkit.sh needs. usage: . .ci/cuda/env.sh [DEST=$HOME/.cuda-13.0]
# FULL=1 before sourcing compiles candle's quantized kernels too, about 20 CPU minutes that no training code calls.
export CUDA_HOME=${1:-$HOME/.cuda-13.0} CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90} CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-2}
export PATH=$CUDA_HOME/bin:$PATH LIBRARY_PATH=$CUDA_HOME/lib/stubs:$CUDA_HOME/lib:${LIBRARY_PATH:-}
if [ "${FULL:-}" != 1 ]; then
  NVCC=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/nvcc-lite
  export NVCC
fi
# The binary opens NVIDIA's libraries when it uses them; without a GPU it starts too, and `sft-run doctor` says what is missing.
