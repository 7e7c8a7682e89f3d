# To be sourced on a GPU machine whose CUDA libraries lie in Python's packages or in a toolkit: links them into one folder and
# sets LD_LIBRARY_PATH. usage: . .ci/cuda/libraries.sh [FOLDER=/tmp/cuda-libraries]
cuda_libraries() {
  local folder=${1:-/tmp/cuda-libraries} library place found
  local packages
  packages=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2>/dev/null)/nvidia
  mkdir -p "$folder"
  for library in libcublas.so.13 libcublasLt.so.13 libcudart.so.13 libcurand.so.10 libnvrtc.so.13 libnccl.so.2 libcudnn.so.9 libcuda.so.1; do
    found=""
    for place in "$packages" /usr/local/cuda*/lib64 /opt/cuda*/lib64 /usr/lib/x86_64-linux-gnu /usr/local/nvidia /usr/lib64; do
      [ -d "$place" ] || continue
      found=$(find -L "$place" -name "$library" -not -path '*/stubs/*' -print -quit 2>/dev/null)
      [ -n "$found" ] && break
    done
    if [ -n "$found" ]; then
      ln -sfn "$(readlink -f "$found")" "$folder/$library"
    else
      echo "$library: not found"
    fi
  done
  # cuDNN and cuBLAS open parts of themselves by name: the packages' own folders stay on the path.
  LD_LIBRARY_PATH="$folder:$(find "$packages" -maxdepth 3 -type d -name lib 2>/dev/null | tr '\n' ':')${LD_LIBRARY_PATH:-}"
  export LD_LIBRARY_PATH
}
cuda_libraries "$@"
