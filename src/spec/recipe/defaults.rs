//! What holds where a recipe is silent; the descriptions of the settings state the same values.

use super::choice::{
    Accelerator, ActivationName, MonitorMode, NormalizationName, PositionEmbeddingName,
};
use super::{Amount, Data, Dataset, ExpManager, Model, Optim, Recipe, Sched, Trainer};
use crate::spec::architecture::{Activation, Architecture, Normalization, PositionEmbedding};
use crate::spec::job::{Keep, Monitor};
use crate::spec::optimization::{Degrees, LossScaling, Precision};

impl Recipe {
    /// The checkpoint that the recipe starts from, if any.
    pub fn restore_from_path(&self) -> Option<&str> {
        let candidates =
            [&self.model.restore_from_path, &self.restore_from_path, &self.gpt_model_file];
        candidates.into_iter().find_map(|path| path.as_deref())
    }
}

impl Trainer {
    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.devices.unwrap_or(1) * self.num_nodes.unwrap_or(1)
    }

    /// Whether ranks compute on GPUs.
    pub fn on_gpu(&self) -> bool {
        self.accelerator.unwrap_or(Accelerator::Gpu) != Accelerator::Cpu
    }

    /// Number format.
    pub fn precision(&self) -> Precision {
        self.precision.map_or(Precision::Fp32, |name| name.0)
    }

    /// Optimizer steps of the run; none when the recipe gives no positive number.
    pub fn steps(&self) -> Option<u64> {
        self.max_steps.and_then(|steps| u64::try_from(steps).ok()).filter(|steps| *steps > 0)
    }

    /// Steps between validations; 0 for none.
    pub fn validation_interval(&self) -> u64 {
        match (self.val_check_interval, self.limit_val_batches) {
            (_, Some(Amount::Count(0))) => 0,
            (_, Some(Amount::Share(share))) if share <= 0.0 => 0,
            (Some(Amount::Count(steps)), _) => steps,
            _ => 0,
        }
    }

    /// Global batches per validation; none for the whole split.
    pub fn validation_batches(&self) -> Option<u64> {
        match self.limit_val_batches {
            Some(Amount::Count(batches)) => Some(batches),
            _ => None,
        }
    }
}

impl Model {
    /// Ranks along each axis. Data parallelism takes what the others leave of the world.
    pub fn degrees(&self, trainer: &Trainer) -> Degrees {
        let tensor = self.tensor_model_parallel_size.unwrap_or(1);
        let pipeline = self.pipeline_model_parallel_size.unwrap_or(1);
        Degrees {
            data: trainer.world_size() / (tensor * pipeline),
            pipeline,
            virtual_pipeline: self.virtual_pipeline_model_parallel_size.unwrap_or(1),
            tensor,
            // NeMo does the same: there is nothing to split over one tensor rank.
            sequence: self.sequence_parallel.unwrap_or(false) && tensor > 1,
        }
    }

    /// fp16's loss scaling.
    pub fn loss_scaling(&self) -> LossScaling {
        LossScaling {
            native_amp_init_scale: self.native_amp_init_scale.unwrap_or(4_294_967_296.0),
            native_amp_growth_interval: self.native_amp_growth_interval.unwrap_or(1000),
            hysteresis: self.hysteresis.unwrap_or(2),
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or(1234)
    }

    /// Tokens per sequence: the least of `encoder_seq_length`, the data's `seq_length` and what the
    /// training rows are cut to.
    pub fn sequence_length(&self) -> Option<usize> {
        let data = self.data.as_ref();
        let rows = data.and_then(|data| data.train_ds.as_ref());
        let lengths = [
            self.encoder_seq_length,
            data.and_then(|data| data.seq_length),
            rows.and_then(|rows| rows.max_seq_length),
        ];
        lengths.into_iter().flatten().min()
    }

    /// Longest sequence that positions can number.
    pub fn max_positions(&self) -> Option<usize> {
        self.max_position_embeddings.or(self.encoder_seq_length).or_else(|| self.sequence_length())
    }

    /// The model's shape with every default filled in, for a vocabulary of `vocab_size` ids in
    /// `padded_vocab_size` rows; else the key that is missing, or says a form that is not built.
    pub fn architecture(
        &self,
        vocab_size: usize,
        padded_vocab_size: usize,
    ) -> Result<Architecture, &'static str> {
        let [hidden_dropout, attention_dropout, ffn_dropout] = self.dropouts();
        Ok(Architecture {
            num_layers: self.num_layers.ok_or("num_layers")?,
            hidden_size: self.hidden_size.ok_or("hidden_size")?,
            ffn_hidden_size: self.ffn_width().ok_or("ffn_hidden_size")?,
            num_attention_heads: self.num_attention_heads.ok_or("num_attention_heads")?,
            num_query_groups: self.query_groups().ok_or("num_query_groups")?,
            kv_channels: self.head_width().ok_or("kv_channels")?,
            vocab_size,
            padded_vocab_size,
            max_position_embeddings: self.max_positions().ok_or("max_position_embeddings")?,
            position_embedding_type: self.positions().ok_or("position_embedding_type")?,
            rotary_percentage: self.rotary_percentage.unwrap_or(1.0),
            rotary_base: self.rotary_base.unwrap_or(10_000.0),
            seq_len_interpolation_factor: self.seq_len_interpolation_factor,
            normalization: self.normalization().ok_or("normalization")?,
            layernorm_epsilon: self.layernorm_epsilon.unwrap_or(1e-5),
            activation: self.activation(),
            bias: self.bias(),
            share_embeddings_and_output_weights: self
                .share_embeddings_and_output_weights
                .unwrap_or(true),
            use_parallel_residual: self.use_parallel_residual.unwrap_or(false),
            hidden_dropout,
            attention_dropout,
            ffn_dropout,
            init_method_std: self.init_method_std.unwrap_or(0.02),
            use_scaled_init_method: self.use_scaled_init_method.unwrap_or(true),
        })
    }

    /// Width of the MLP's inner layer.
    pub fn ffn_width(&self) -> Option<usize> {
        self.ffn_hidden_size.or_else(|| self.hidden_size.map(|hidden| hidden.saturating_mul(4)))
    }

    /// Number of key and value heads.
    pub fn query_groups(&self) -> Option<usize> {
        self.num_query_groups.or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn head_width(&self) -> Option<usize> {
        self.kv_channels.or_else(|| self.hidden_size?.checked_div(self.num_attention_heads?))
    }

    /// Whether linear layers have biases.
    pub fn bias(&self) -> bool {
        self.bias.unwrap_or(true)
    }

    /// The normalization; none when we do not compute the named one.
    pub fn normalization(&self) -> Option<Normalization> {
        self.normalization.map_or(Some(Normalization::Layernorm), NormalizationName::built)
    }

    /// How positions enter; none when we do not compute the named form.
    pub fn positions(&self) -> Option<PositionEmbedding> {
        let named = self.position_embedding_type;
        named.map_or(Some(PositionEmbedding::LearnedAbsolute), PositionEmbeddingName::built)
    }

    /// The activation. NeMo's fused kernel and `openai_gelu` take GELU's tanh form; its unfused
    /// `gelu` (no fusion asked for, or no bias to fuse with) is the exact form.
    pub fn activation(&self) -> Activation {
        let fused = self.bias_activation_fusion.unwrap_or(true) && self.bias();
        let tanh = fused || self.openai_gelu.unwrap_or(false);
        match self.activation.unwrap_or(ActivationName::Gelu) {
            ActivationName::Gelu if tanh => Activation::Gelu,
            ActivationName::Gelu => Activation::GeluErf,
            ActivationName::Relu => Activation::Relu,
            ActivationName::SquaredRelu => Activation::SquaredRelu,
            ActivationName::Geglu | ActivationName::FastGeglu => Activation::Geglu,
            ActivationName::Swiglu | ActivationName::FastSwiglu => Activation::Swiglu,
            ActivationName::Reglu | ActivationName::FastReglu => Activation::Reglu,
        }
    }

    /// Dropout after the embedding and the sub-layers, of attention, and inside the MLP.
    pub fn dropouts(&self) -> [f64; 3] {
        [
            self.hidden_dropout.unwrap_or(0.1),
            self.attention_dropout.unwrap_or(0.1),
            self.ffn_dropout.unwrap_or(0.0),
        ]
    }

    /// Shape settings that the recipe leaves out and that have no default.
    pub fn missing_shape(&self) -> Vec<&'static str> {
        let required = [
            ("encoder_seq_length", self.sequence_length().is_none()),
            ("num_layers", self.num_layers.is_none()),
            ("hidden_size", self.hidden_size.is_none()),
            ("num_attention_heads", self.num_attention_heads.is_none()),
        ];
        required.into_iter().filter(|(_, missing)| *missing).map(|(key, _)| key).collect()
    }
}

impl ExpManager {
    /// Whether checkpoints are kept at all; NeMo keeps them when nothing is said.
    pub fn keeps_checkpoints(&self) -> bool {
        self.create_checkpoint_callback.unwrap_or(true)
    }

    /// The value that ranks checkpoints, as the recipe names it.
    pub fn monitor(&self) -> &str {
        let params = self.checkpoint_callback_params.as_ref();
        params.and_then(|params| params.monitor.as_deref()).unwrap_or("val_loss")
    }

    /// Names of kept checkpoints; NeMo's default, with the step in place of the epoch.
    pub fn checkpoint_filename(&self) -> String {
        let params = self.checkpoint_callback_params.as_ref();
        params.and_then(|params| params.filename.clone()).unwrap_or_else(|| {
            let name = self.name.as_deref().unwrap_or("default");
            format!("{name}--{{{}:.4f}}-{{step}}-{{consumed_samples}}", self.monitor())
        })
    }

    /// How many of the best checkpoints are kept, if the recipe says so; -1 for all.
    pub fn save_top_k(&self) -> Option<i64> {
        let params =
            self.checkpoint_callback_params.as_ref().filter(|_| self.keeps_checkpoints())?;
        let best = (params.save_best_model == Some(true)).then_some(1);
        params.save_top_k.or(best).filter(|count| *count != 0)
    }

    /// Which checkpoints are kept beside the last.
    pub fn kept(&self) -> Option<Keep> {
        let params = self.checkpoint_callback_params.as_ref()?;
        Some(Keep {
            save_top_k: self.save_top_k()?,
            monitor: Monitor::named(self.monitor())?,
            more_is_better: params.mode == Some(MonitorMode::Max),
            filename: self.checkpoint_filename(),
            save_best_model: params.save_best_model.unwrap_or(false),
        })
    }

    /// Steps between checkpoints of stages that do not say it: with each validation, as NeMo saves
    /// them, or 20 times a run when there is none.
    pub fn checkpoint_every(&self, trainer: &Trainer) -> u64 {
        let given =
            self.checkpoint_callback_params.as_ref().and_then(|kept| kept.every_n_train_steps);
        if !self.keeps_checkpoints() {
            return 0;
        }
        let validations = Some(trainer.validation_interval()).filter(|steps| *steps > 0);
        let share = trainer.steps().unwrap_or(0) / 20;
        given.or(validations).unwrap_or_else(|| share.max(1))
    }
}

impl Dataset {
    /// The row files.
    pub fn files(&self) -> Vec<String> {
        let listed = self.file_names.iter().flat_map(|files| &files.0);
        listed.chain(&self.file_path).cloned().collect()
    }
}

impl Data {
    /// Whether the sequences of an epoch are shuffled: rows unless they say no, ready shards unless
    /// the loader is `single`.
    pub fn shuffle(&self) -> bool {
        use super::choice::DataloaderType;
        match &self.train_ds {
            Some(rows) => rows.shuffle.unwrap_or(true),
            None => self.dataloader_type != Some(DataloaderType::Single),
        }
    }

    /// Shares of train, validation and test, summing to 1; none when `splits_string` cannot be read.
    pub fn splits(&self) -> Option<[f64; 3]> {
        let text = self.splits_string.as_deref().unwrap_or("900,50,50");
        let mut shares = [0.0; 3];
        let parts: Vec<&str> = text.split([',', '/']).map(str::trim).collect();
        for (share, part) in shares.iter_mut().zip(&parts) {
            *share = part.parse().ok().filter(|share: &f64| *share >= 0.0)?;
        }
        let sum: f64 = shares.iter().sum();
        (parts.len() <= 3 && sum > 0.0).then(|| shares.map(|share| share / sum))
    }
}

impl Optim {
    /// Decay of the first and the second moment.
    pub fn betas(&self) -> [f64; 2] {
        self.betas.unwrap_or([0.9, 0.999])
    }
}

impl Sched {
    /// Length of the schedule in steps for a run of so many steps.
    pub fn length(&self, run: u64) -> u64 {
        self.max_steps.unwrap_or(run)
    }

    /// Steps of warm-up; a ratio is rounded down, as NeMo does.
    pub fn warmup(&self, run: u64) -> u64 {
        self.warmup_steps.unwrap_or_else(|| part(self.warmup_ratio, self.length(run)))
    }

    /// Steps at `min_lr` at the end.
    pub fn constant(&self, run: u64) -> u64 {
        self.constant_steps.unwrap_or_else(|| part(self.constant_ratio, self.length(run)))
    }
}

#[expect(clippy::cast_sign_loss, reason = "ratios are checked to lie between 0 and 1")]
fn part(ratio: Option<f64>, steps: u64) -> u64 {
    ratio.map_or(0, |ratio| (ratio * steps as f64) as u64)
}
