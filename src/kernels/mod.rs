//! Fused operations with forward and backward, each a safe function; the CPU's code here, CUDA's beside it.
