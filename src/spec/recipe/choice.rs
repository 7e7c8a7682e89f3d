//! Settings with a fixed set of values. Values of NeMo's that we do not compute are listed too, so
//! that they can be refused by name (see `recipe/keys`).

use crate::spec::architecture::{Normalization, PositionEmbedding};
use crate::spec::optimization::{OptimizerName, Precision, ScheduleName};
use schemars::JsonSchema;
use serde::Deserialize;

/// A set of names, each with the text that stands for it in a recipe.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// The text in a recipe.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

choices!(
    /// What the ranks compute on.
    Accelerator {
        /// The processor.
        Cpu = "cpu",
        /// CUDA devices.
        Gpu = "gpu",
        /// CUDA devices.
        Cuda = "cuda",
    }
);

choices!(
    /// Whether less or more is better.
    MonitorMode {
        /// Less is better.
        Min = "min",
        /// More is better.
        Max = "max",
    }
);

choices!(
    /// Where tokenizers come from.
    TokenizerLibrary {
        /// GPT-2's byte-level BPE, from `vocab_file` and `merge_file`.
        Megatron = "megatron",
        /// A `tokenizer.json`.
        HuggingFace = "huggingface",
        /// A SentencePiece `.model`.
        SentencePiece = "sentencepiece",
        /// YouTokenToMe.
        Yttm = "yttm",
        /// Bytes.
        ByteLevel = "byte-level",
        /// Characters.
        Char = "char",
        /// Words.
        Word = "word",
        /// Regular expressions.
        Regex = "regex",
        /// Tables.
        Tabular = "tabular",
        /// tiktoken.
        Tiktoken = "tiktoken",
    }
);

choices!(
    /// Normalization of a hidden vector.
    NormalizationName {
        /// Mean and variance.
        Layernorm = "layernorm",
        /// Layernorm whose stored weight is the difference from one.
        Layernorm1p = "layernorm1p",
        /// Root mean square.
        Rmsnorm = "rmsnorm",
        /// Layernorm in half precision.
        LowPrecisionLayernorm = "low_precision_layernorm",
    }
);

impl NormalizationName {
    /// The computation, if we have it.
    pub fn built(self) -> Option<Normalization> {
        match self {
            Self::Layernorm => Some(Normalization::Layernorm),
            Self::Layernorm1p => Some(Normalization::Layernorm1p),
            Self::Rmsnorm => Some(Normalization::Rmsnorm),
            Self::LowPrecisionLayernorm => None,
        }
    }
}

choices!(
    /// The MLP's activation; the `fast-` names compute the same with one matrix for both halves.
    ActivationName {
        /// GELU.
        Gelu = "gelu",
        /// `max(x, 0)`.
        Relu = "relu",
        /// `max(x, 0)²`.
        SquaredRelu = "squared-relu",
        /// `gelu(gate) * up`.
        Geglu = "geglu",
        /// `silu(gate) * up`.
        Swiglu = "swiglu",
        /// `max(gate, 0) * up`.
        Reglu = "reglu",
        /// `geglu` in one matrix.
        FastGeglu = "fast-geglu",
        /// `swiglu` in one matrix.
        FastSwiglu = "fast-swiglu",
        /// `reglu` in one matrix.
        FastReglu = "fast-reglu",
    }
);

choices!(
    /// Order of normalization and sub-layers in a block.
    BlockType {
        /// Normalization before each sub-layer.
        PreLn = "pre_ln",
        /// Normalization after each sub-layer.
        PostLn = "post_ln",
        /// `pre_ln` with further normalizations.
        Normformer = "normformer",
    }
);

choices!(
    /// How positions enter.
    PositionEmbeddingName {
        /// A learned vector per position.
        LearnedAbsolute = "learned_absolute",
        /// Rotation of queries and keys.
        Rope = "rope",
        /// Biases of the attention scores.
        Alibi = "alibi",
        /// Kernel biases of the attention scores.
        Kerple = "kerple",
        /// Rotation with decay.
        Xpos = "xpos",
        /// Sinusoidal biases of the attention scores.
        Sandwich = "sandwich",
        /// No positions.
        None = "none",
    }
);

impl PositionEmbeddingName {
    /// The computation, if we have it.
    pub fn built(self) -> Option<PositionEmbedding> {
        match self {
            Self::LearnedAbsolute => Some(PositionEmbedding::LearnedAbsolute),
            Self::Rope => Some(PositionEmbedding::Rope),
            _ => None,
        }
    }
}

choices!(
    /// What is computed again in the backward pass.
    Granularity {
        /// The core of attention.
        Selective = "selective",
        /// Whole blocks.
        Full = "full",
    }
);

choices!(
    /// Which blocks are computed again.
    RecomputeMethod {
        /// All, in groups.
        Uniform = "uniform",
        /// The first of each pipeline stage.
        Block = "block",
    }
);

choices!(
    /// Order of the training sequences.
    DataloaderType {
        /// As they stand.
        Single = "single",
        /// Shuffled anew in every epoch.
        Cyclic = "cyclic",
    }
);

choices!(
    /// Form of ready shards.
    DataImpl {
        /// Megatron's `.bin` and `.idx`.
        Mmap = "mmap",
        /// fairseq's lazy files.
        Lazy = "lazy",
        /// fairseq's cached files.
        Cached = "cached",
    }
);

choices!(
    /// Which end of a too long text is cut.
    TruncationMethod {
        /// The beginning.
        Left = "left",
        /// The end.
        Right = "right",
    }
);

choices!(
    /// Optimizers by NeMo's names.
    OptimizerChoice {
        /// AdamW.
        Adamw = "adamw",
        /// AdamW (apex's fused kernel).
        FusedAdam = "fused_adam",
        /// AdamW (Megatron's).
        MegatronFusedAdam = "megatron_fused_adam",
        /// AdamW whose state is split over the data-parallel ranks.
        DistributedFusedAdam = "distributed_fused_adam",
        /// AdamW whose state is split over the data-parallel ranks (megatron-core's).
        McoreDistributedOptim = "mcore_distributed_optim",
        /// Adam with L2 regularization in the gradient.
        Adam = "adam",
        /// Stochastic gradient descent.
        Sgd = "sgd",
        /// Adadelta.
        Adadelta = "adadelta",
        /// Adamax.
        Adamax = "adamax",
        /// Adagrad.
        Adagrad = "adagrad",
        /// RMSprop.
        Rmsprop = "rmsprop",
        /// Rprop.
        Rprop = "rprop",
        /// NovoGrad.
        Novograd = "novograd",
        /// Adafactor.
        Adafactor = "adafactor",
        /// Adan.
        Adan = "adan",
        /// LAMB.
        Lamb = "lamb",
    }
);

impl OptimizerChoice {
    /// The computation, if we have it; `adam` is AdamW only when nothing decays.
    pub fn built(self) -> Option<OptimizerName> {
        match self {
            Self::Adamw | Self::FusedAdam | Self::MegatronFusedAdam | Self::Adam => {
                Some(OptimizerName::Adamw)
            }
            Self::DistributedFusedAdam | Self::McoreDistributedOptim => {
                Some(OptimizerName::DistributedFusedAdam)
            }
            _ => None,
        }
    }
}

choices!(
    /// Learning-rate curves by NeMo's names.
    ScheduleChoice {
        /// Half a cosine from `lr` to `min_lr`.
        CosineAnnealing = "CosineAnnealing",
        /// Warm-up, then constant.
        WarmupPolicy = "WarmupPolicy",
        /// Warm-up, hold, then constant.
        WarmupHoldPolicy = "WarmupHoldPolicy",
        /// Square.
        SquareAnnealing = "SquareAnnealing",
        /// Square root.
        SquareRootAnnealing = "SquareRootAnnealing",
        /// The Transformer paper's.
        NoamAnnealing = "NoamAnnealing",
        /// The Transformer paper's with a hold.
        NoamHoldAnnealing = "NoamHoldAnnealing",
        /// Linear to zero.
        WarmupAnnealing = "WarmupAnnealing",
        /// Inverse square root.
        InverseSquareRootAnnealing = "InverseSquareRootAnnealing",
        /// T5's inverse square root.
        T5InverseSquareRootAnnealing = "T5InverseSquareRootAnnealing",
        /// Polynomial.
        PolynomialDecayAnnealing = "PolynomialDecayAnnealing",
        /// Polynomial with a hold.
        PolynomialHoldDecayAnnealing = "PolynomialHoldDecayAnnealing",
        /// Warm-up, hold, one minus square root.
        WarmupHoldAnnealOneMinusSquareRoot = "WarmupHoldAnnealOneMinusSquareRoot",
        /// Warm-up, hold, linear.
        WarmupHoldAnnealLinear = "WarmupHoldAnnealLinear",
        /// Steps.
        StepLr = "StepLR",
        /// Exponential.
        ExponentialLr = "ExponentialLR",
        /// By the validation loss.
        ReduceLrOnPlateau = "ReduceLROnPlateau",
        /// Cycles.
        CyclicLr = "CyclicLR",
    }
);

impl ScheduleChoice {
    /// The curve, if we have it.
    pub fn built(self) -> Option<ScheduleName> {
        match self {
            Self::CosineAnnealing => Some(ScheduleName::CosineAnnealing),
            Self::WarmupPolicy => Some(ScheduleName::WarmupPolicy),
            _ => None,
        }
    }
}

choices!(
    /// Whose rules are followed where NeMo's differ from ours.
    Compat {
        /// NeMo's, its defects included.
        Nemo = "nemo",
    }
);

/// Number format of the computation: `16`, `32`, `bf16` or one of Lightning 2's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrecisionName(pub Precision);

impl PrecisionName {
    /// What may be written, as text, and what it means; numbers may stand without quotes.
    pub const NAMES: [(&'static str, Precision); 7] = [
        ("32", Precision::Fp32),
        ("bf16", Precision::Bf16),
        ("16", Precision::Fp16),
        ("32-true", Precision::Fp32),
        ("bf16-mixed", Precision::Bf16),
        ("16-mixed", Precision::Fp16),
        ("fp32", Precision::Fp32),
    ];

    /// The shortest way to write it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Precision::Fp32 => "32",
            Precision::Bf16 => "bf16",
            Precision::Fp16 => "16",
        }
    }
}
