//! Rows to micro-batches: tokenizers, shards, packing, samplers.
