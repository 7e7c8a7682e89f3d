// What the parts that call NVIDIA's libraries share: the last error in words, and device memory that only grows.
#pragma once

#include <cuda_runtime.h>
#include <cstdint>
#include <string>

namespace sft {

// Keeps `what` for sft_library_error and gives a non-zero code.
int fail(const std::string &what);

// Device memory for the libraries' own use, on one stream; freed with its owner.
struct Workspace {
  void *at = nullptr;
  size_t bytes = 0;
  int reserve(size_t needed) {
    if (needed <= bytes) return 0;
    // cudaFree waits for the device, so nothing is still reading the old memory.
    if (at) cudaFree(at);
    at = nullptr, bytes = 0;
    const cudaError_t rc = cudaMalloc(&at, needed);
    if (rc != cudaSuccess) return fail(std::string("no ") + std::to_string(needed) + " bytes of GPU memory: " + cudaGetErrorString(rc));
    bytes = needed;
    return 0;
  }
  ~Workspace() {
    if (at) cudaFree(at);
  }
};

} // namespace sft
