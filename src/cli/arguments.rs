//! The command line.

pub use super::convert_arguments::{ConvertArguments, ConvertDtype, ConvertTarget};
use super::fault;
pub use super::sweep_arguments::SweepArguments;
pub use super::text_arguments::{GenerateArguments, PreviewArguments};
use super::verify_arguments::VerifyArguments;
use crate::report::runs::Condition;
use crate::spec::fault::Fault;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "sft-run",
    version,
    about = "Fine-tune GPT models from one recipe: tokenize, shard, load, train, evaluate, generate",
    override_usage = "sft-run RECIPE [KEY=VALUE]...\n       sft-run COMMAND ...",
    after_help = "A recipe's path in place of a command runs it: `sft-run recipe.yaml` is `sft-run run recipe.yaml`.\n\
                  Exit codes: 0 done or up to date, 1 failed, 2 the recipe or the command is wrong, 3 (verify) something differs, 4 (plan, status) work to do.",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Arguments {
    /// How things are shown.
    #[command(flatten)]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// Print one JSON document to stdout; everything else goes to stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more (-v info, -vv debug, -vvv trace)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Form of the log lines on stderr
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text
    Text,
    /// A JSON object per line
    Json,
}

/// A recipe and what is changed in it.
#[derive(Clone, Debug, Args)]
pub struct RecipeArguments {
    /// The recipe
    pub recipe: PathBuf,
    /// Changes: KEY=VALUE, +KEY=VALUE (add), ++KEY=VALUE (add or set), ~KEY (delete)
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// What else is given to it.
    #[command(flatten)]
    pub options: RecipeOptions,
}

/// What is given to a recipe beside its changes.
#[derive(Clone, Debug, Args)]
pub struct RecipeOptions {
    /// A value for `${{ vars.NAME }}` in the recipe
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub variables: Vec<String>,
    /// Changes as one JSON object of dotted keys, as trlx takes them
    #[arg(long, value_name = "JSON")]
    pub hparams: Option<String>,
    /// Treat lints as errors
    #[arg(long)]
    pub deny_lints: bool,
    /// Where stage outputs are kept (else `SFT_RUN_CACHE`, else `.sft-run/cache` beside the recipe)
    #[arg(long, value_name = "FOLDER")]
    pub cache_dir: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a recipe: what is done already is reused
    Run(RunArguments),
    /// Show what a run would do and why
    Plan(PlanArguments),
    /// Show the first samples as the model will see them: tokens, and which are learned
    Preview(PreviewArguments),
    /// Check a recipe without reading its data
    Validate(RecipeArguments),
    /// Print a recipe's values
    Config(ConfigArguments),
    /// Show every stage: fresh, stale and why, or missing
    Status(RecipeArguments),
    /// Run a recipe again and hold it to its lock, to the bit
    Verify(VerifyArguments),
    /// Measure training speed
    Bench(BenchArguments),
    /// Generate text with a run's model
    Generate(GenerateArguments),
    /// Write a checkpoint of any program as another's: Hugging Face, NeMo, GGUF (read only), native
    Convert(ConvertArguments),
    /// Show what a checkpoint, a shard, a tokenizer or a run holds
    Inspect(InspectArguments),
    /// Try many values of a recipe's settings
    Sweep(SweepArguments),
    /// List runs
    Runs(RunsArguments),
    /// Compare two runs: recipes, environments, loss curves, metrics and answers
    Compare(CompareArguments),
    /// Remove stage outputs that no lock file names
    Gc(GcArguments),
    /// Show what this build and this machine can do
    Doctor,
    /// Print a JSON Schema of recipes, or every key with its status
    Schema(SchemaArguments),
    /// Print a completion script
    Completions(CompletionsArguments),
    /// Work on tokenizers
    Tokenizer(TokenizerArguments),
}

/// `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Run every stage anew, whatever the cache holds
    #[arg(long)]
    pub no_cache: bool,
    /// Run this stage anew (repeatable)
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Run this stage and all that read from it anew
    #[arg(long, value_name = "STAGE")]
    pub from: Option<String>,
    /// Leave out every stage that this one does not need
    #[arg(long, value_name = "STAGE")]
    pub to: Option<String>,
    /// End when the input ends; this file is locked as long as the run lives (for `sweep`)
    #[arg(long, hide = true, value_name = "FILE")]
    pub leash: Option<PathBuf>,
    /// Stop training after this step, to be continued (for `sweep`)
    #[arg(long, hide = true, value_name = "STEP")]
    pub pause_at: Option<u64>,
    /// Make a rank fail in the middle of a training step, to see what the run and whatever
    /// supervises it make of that: RANK:STEP:error or RANK:STEP:panic, such as 3:10:panic
    #[arg(long, hide_short_help = true, value_name = "FAULT", value_parser = fault::parse)]
    pub inject_fault: Option<Fault>,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Print the graph of stages instead
    #[arg(long, value_enum, value_name = "FORM")]
    pub graph: Option<GraphForm>,
    /// Print the pipeline schedule of each training instead
    #[arg(long, conflicts_with = "graph")]
    pub schedule: bool,
    /// Print layouts and micro-batch sizes that fit instead, best first
    #[arg(long, conflicts_with_all = ["graph", "schedule"])]
    pub suggest: bool,
    /// Memory of a device, such as 80GiB (else that of this machine's)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub device_memory: Option<u64>,
}

/// Bytes from a number with a unit: `80GiB`, `80GB`, `1.5TiB`, `85899345920B`.
fn size(text: &str) -> Result<u64, String> {
    let units = [
        ("KiB", 1_u64 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let wrong = || "write a size with its unit, such as 80GiB".to_owned();
    let unit = units.iter().find(|(unit, _)| text.ends_with(unit));
    let (unit, factor) = unit.ok_or_else(wrong)?;
    let number = text[..text.len() - unit.len()].trim_end();
    let number: f64 = number.parse().map_err(|_| wrong())?;
    if !(number * *factor as f64 >= 1.0 && number.is_finite()) {
        return Err("write a size above 0, such as 80GiB".to_owned());
    }
    #[expect(clippy::cast_sign_loss, reason = "it is above 0")]
    Ok((number * *factor as f64) as u64)
}

/// Languages for drawings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphForm {
    /// Mermaid, as GitHub draws it
    Mermaid,
    /// Graphviz
    Dot,
}

/// `config`.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Put values in place of `${…}`
    #[arg(long)]
    pub resolve: bool,
    /// Print only this part, such as `model.optim`
    #[arg(short, long = "package", value_name = "PATH")]
    pub path: Option<String>,
    /// Say where each value comes from
    #[arg(long)]
    pub origins: bool,
}

/// `bench`.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Timed steps
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Steps before the clock starts
    #[arg(long, default_value_t = 3)]
    pub warmup: u64,
    /// The train stage, when there are several
    #[arg(long, value_name = "NAME")]
    pub stage: Option<String>,
}

/// `inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// A file or a folder
    pub path: PathBuf,
}

/// `runs`.
#[derive(Debug, Args)]
pub struct RunsArguments {
    /// The folder in which runs lie
    #[arg(default_value = "runs")]
    pub folder: PathBuf,
    /// Only runs of which this holds, such as state=done, 'loss<1.5', 'model.optim.lr>=1e-3' or name~quick (repeatable)
    #[arg(long = "where", value_name = "CONDITION", value_parser = Condition::parse)]
    pub conditions: Vec<Condition>,
    /// Sort by started (the default, newest first), name, state, time, a metric, or a setting
    #[arg(long, value_name = "KEY")]
    pub sort: Option<String>,
    /// The other way round
    #[arg(long)]
    pub reverse: bool,
    /// Show the settings that are not the same in every run
    #[arg(long)]
    pub settings: bool,
}

/// `compare`.
#[derive(Debug, Args)]
pub struct CompareArguments {
    /// The first run's folder
    pub first: PathBuf,
    /// The second run's folder
    pub second: PathBuf,
}

/// `gc`.
#[derive(Debug, Args)]
pub struct GcArguments {
    /// The recipe whose cache it is, or a folder of recipes
    #[arg(default_value = ".")]
    pub recipe: PathBuf,
    /// Where stage outputs are kept (else `SFT_RUN_CACHE`, else `.sft-run/cache` beside the recipe)
    #[arg(long, value_name = "FOLDER")]
    pub cache_dir: Option<PathBuf>,
    /// Say what would be removed, remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove interrupted training too, which a run could go on with
    #[arg(long)]
    pub partial: bool,
}

/// `schema`.
#[derive(Debug, Args)]
pub struct SchemaArguments {
    /// List every key with its status: honoured, no effect here, refused
    #[arg(long)]
    pub keys: bool,
    /// The schema of resolved recipes, without interpolations
    #[arg(long, conflicts_with = "keys")]
    pub strict: bool,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `tokenizer`.
#[derive(Debug, Args)]
pub struct TokenizerArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: TokenizerCommand,
}

/// Work on tokenizers.
#[derive(Debug, Subcommand)]
pub enum TokenizerCommand {
    /// Train a byte-level BPE and write a `tokenizer.json`
    Train(TokenizerTrainArguments),
}

/// `tokenizer train`.
#[derive(Debug, Args)]
pub struct TokenizerTrainArguments {
    /// Text or JSONL files
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// A field of the JSONL rows that holds text (repeatable)
    #[arg(long = "field", value_name = "NAME")]
    pub fields: Vec<String>,
    /// A minijinja template over the JSONL rows, such as a recipe's prompt (repeatable)
    #[arg(long = "template", value_name = "TEXT", conflicts_with = "fields")]
    pub templates: Vec<String>,
    /// Merge no pair that occurs less often
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub min_frequency: u64,
    /// Number of tokens, special ones included
    #[arg(long, default_value_t = 4096, value_name = "N")]
    pub vocab_size: usize,
    /// Where to write
    #[arg(short, long, default_value = "tokenizer.json", value_name = "FILE")]
    pub output: PathBuf,
}
