//! The names that a checkpoint's pickle may hold; all are data to us, none is called.

/// Modules and names, `*` for every name of a module.
const KNOWN: &[(&str, &str)] = &[
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.nn.parameter", "Parameter"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.storage", "UntypedStorage"),
    ("torch.storage", "TypedStorage"),
    ("torch.storage", "_load_from_bytes"),
    ("torch.serialization", "_get_layout"),
    ("torch.random", "get_rng_state"),
    ("argparse", "Namespace"),
    ("builtins", "set"),
    ("builtins", "slice"),
    ("builtins", "bytearray"),
    ("__builtin__", "set"),
    ("__builtin__", "bytearray"),
    ("_codecs", "encode"),
    ("_io", "BytesIO"),
    ("io", "BytesIO"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("signal", "Signals"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("omegaconf.dictconfig", "DictConfig"),
    ("omegaconf.listconfig", "ListConfig"),
    ("omegaconf.base", "ContainerMetadata"),
    ("omegaconf.base", "Metadata"),
    ("omegaconf.nodes", "AnyNode"),
    ("typing", "Any"),
    ("megatron.enums", "*"),
    ("megatron.model.enums", "*"),
    ("megatron.core.enums", "*"),
    ("megatron.core.transformer.enums", "*"),
    ("megatron.core.rerun_state_machine", "*"),
];

/// Number formats of PyTorch, as `torch.float32` and as `torch.FloatStorage`.
const DTYPES: &[&str] = &[
    "float32", "float", "float64", "double", "float16", "half", "bfloat16", "int8", "uint8",
    "int16", "short", "int32", "int", "int64", "long", "bool",
];

/// Whether `module.name` is something that checkpoints are made of.
pub(super) fn is_known(module: &str, name: &str) -> bool {
    let listed =
        KNOWN.iter().any(|(own, names)| *own == module && (*names == name || *names == "*"));
    let dotted = name.contains('.') || name.is_empty();
    let number = module == "torch" && (DTYPES.contains(&name) || name.ends_with("Storage"));
    (listed || number) && !dotted
}

#[cfg(test)]
mod tests {
    use super::is_known;

    #[test]
    fn what_runs_code_is_not_known() {
        let refused = [
            ("os", "system"),
            ("posix", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("torch", "load"),
            ("megatron.core.enums", "os.system"),
            ("subprocess", "Popen"),
        ];
        assert!(refused.iter().all(|(module, name)| !is_known(module, name)));
        assert!(is_known("torch", "BFloat16Storage") && is_known("torch", "bfloat16"));
    }
}
