//! The binary from outside, on a recipe that takes a second.

mod checkpoints;
mod conversations;
mod evaluations;
mod faults;
mod kills;
mod layouts;
mod lists;
mod nodes;
#[cfg(unix)]
mod outputs;
#[cfg(unix)]
mod streams;

use serde_json::Value;
use sft_run::base::atomic_file;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A folder of its own with the tiny recipe, its rows and its tokenizer.
pub(crate) struct Desk(tempfile::TempDir);

impl Desk {
    pub(crate) fn new() -> Desk {
        let desk = Desk(tempfile::tempdir().unwrap());
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/program");
        for entry in fs::read_dir(fixtures).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, desk.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
        }
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sft-run"));
        command.args(words).current_dir(self.0.path()).env_remove("SFT_RUN_CACHE");
        command.env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs the program, which must end with `code`; what it wrote to stdout.
    pub(crate) fn run(&self, words: &[&str], code: i32) -> String {
        let output = self.output(words);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words:?}\n{stdout}\n{stderr}");
        stdout
    }

    /// Losses and learning rates of `metrics.jsonl`, times left out.
    pub(crate) fn numbers(&self, name: &str) -> Vec<String> {
        let keep = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("tokens_per_second");
            line.to_string()
        };
        self.text(name).lines().map(keep).collect()
    }

    /// What `summary.json` says became of each stage.
    pub(crate) fn states(&self) -> Vec<(String, String)> {
        let summary = self.json("runs/tiny/summary.json");
        let stage = |stage: &Value| (word(&stage["name"]), word(&stage["state"]));
        summary["stages"].as_array().unwrap().iter().map(stage).collect()
    }

    pub(crate) fn lines_of_metrics(&self) -> usize {
        fs::read_to_string(self.path("runs/tiny/metrics.jsonl")).unwrap_or_default().lines().count()
    }

    /// Starts a long run and gives it back in the middle of training.
    pub(crate) fn in_the_middle(&self) -> Child {
        let mut child =
            self.command(LONG).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while self.lines_of_metrics() < 40 {
            assert!(start.elapsed() < Duration::from_secs(100), "training does not begin");
            assert_eq!(child.try_wait().unwrap(), None, "the run ended too early");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }
}

/// A run that is long enough to be stopped.
const LONG: &[&str] = &["tiny.yaml", "trainer.max_steps=300", "trainer.val_check_interval=50"];

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn word(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn named(state: &str, names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), state.to_owned())).collect()
}

#[test]
fn a_run_leaves_its_folder_and_the_second_does_nothing() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["status", "tiny.yaml"], 4).matches(" missing ").count(), 6);
    let first = desk.run(&["tiny.yaml"], 0);
    assert!(
        first.contains("step 12/12") && first.contains("exact_match") && first.contains("next"),
        "{first}"
    );
    let names = ["tokenize", "shard", "load", "train", "evaluate", "generate"];
    assert_eq!(desk.states(), named("run", &names));
    let metrics = desk.numbers("runs/tiny/metrics.jsonl");
    assert_eq!(metrics.len(), 12 + 3);
    assert!(metrics[0].contains("reduced_train_loss") && metrics[4].contains("val_loss"));
    let files = ["report.html", "samples.jsonl", "events.jsonl", "recipe.resolved.yaml"];
    assert!(files.iter().all(|name| !desk.text(&format!("runs/tiny/{name}")).is_empty()));
    assert!(desk.path("runs/tiny/checkpoints/train/checkpoint/model-00000.safetensors").is_file());
    assert_eq!(desk.text("runs/tiny/.running"), "", "the run came to its end");
    let (lock, summary) = (desk.text("tiny.lock"), desk.text("runs/tiny/summary.json"));

    let second = desk.run(&["tiny.yaml"], 0);
    assert!(second.contains("up to date, nothing to do"), "{second}");
    assert_eq!((desk.text("tiny.lock"), desk.text("runs/tiny/summary.json")), (lock, summary));
    assert!(desk.run(&["plan", "tiny.yaml"], 0).contains("up to date"));
    let status = desk.run(&["status", "tiny.yaml"], 0);
    assert!(status.matches(" fresh ").count() == 6 && !status.contains("stale"), "{status}");
    let status = desk.run(&["status", "tiny.yaml", "model.optim.lr=2e-3"], 4);
    assert!(status.matches(" fresh ").count() == 3, "{status}");
    assert!(status.matches(" stale ").count() == 3 && status.contains("(override 1)"), "{status}");
    let up_to_date: Value = serde_json::from_str(&desk.run(&["tiny.yaml", "--json"], 0)).unwrap();
    assert_eq!(up_to_date["state"], "up_to_date");
}

#[test]
fn a_changed_learning_rate_reruns_training_and_what_follows() {
    let desk = Desk::new();
    let plan = desk.run(&["plan", "tiny.yaml"], 4);
    assert_eq!(plan.matches("not run before").count(), 6, "{plan}");
    desk.run(&["run", "tiny.yaml"], 0);
    let lock = desk.text("tiny.lock");

    let changed = ["tiny.yaml", "model.optim.lr=2e-3"];
    let plan = desk.run(&["plan", changed[0], changed[1]], 4);
    assert!(plan.contains("model.optim.lr") && plan.contains("0.001 → 0.002"), "{plan}");
    assert!(plan.contains("3 to run, 3 in the cache"), "{plan}");
    desk.run(&changed, 0);
    let mut states = named("reused", &["tokenize", "shard", "load"]);
    states.extend(named("run", &["train", "evaluate", "generate"]));
    assert_eq!(desk.states(), states);
    // A run with overrides is not the recipe's own.
    assert_eq!(desk.text("tiny.lock"), lock);
    // The first run is kept beside it.
    let compared = desk.run(&["compare", "runs/tiny/run_0", "runs/tiny"], 0);
    assert!(
        compared.contains("model.optim.lr") && compared.contains("reduced_train_loss"),
        "{compared}"
    );
    let listed = |words: &[&str]| -> Vec<String> {
        let text = desk.run(&[&["runs"], words].concat(), 0);
        text.lines().filter(|line| line.contains("runs/tiny")).map(str::to_owned).collect()
    };
    assert_eq!(listed(&[]).len(), 2);
    let rates = listed(&["--sort", "model.optim.lr", "--settings"]);
    assert!(rates.len() == 2 && rates.iter().any(|line| line.contains("0.002")), "{rates:?}");
    assert_ne!(rates, listed(&["--sort", "model.optim.lr", "--settings", "--reverse"]));
    assert_eq!(listed(&["--where", "model.optim.lr>0.0015"]).len(), 1);
    assert_eq!(listed(&["--where", "state=failed"]), [""; 0]);
    assert!(
        text(&desk.output(&["runs", "--sort", "model.optim.lt"]).stderr).contains("model.optim.lr")
    );
    // Back again: the cache has it all.
    desk.run(&["tiny.yaml"], 0);
    assert!(desk.states().iter().all(|(_, state)| state == "reused"));
    assert_eq!(
        desk.numbers("runs/tiny/metrics.jsonl"),
        desk.numbers("runs/tiny/run_0/metrics.jsonl")
    );
}

#[test]
fn several_devices_give_the_losses_of_one() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml"], 0);
    let one = desk.numbers("runs/tiny/metrics.jsonl");
    let layouts = [
        ["model.pipeline_model_parallel_size=2", "model.micro_batch_size=1"],
        ["model.tensor_model_parallel_size=2", "+model.sequence_parallel=true"],
    ];
    for split in layouts {
        desk.run(&["tiny.yaml", "trainer.devices=4", split[0], split[1]], 0);
        assert!(desk.states().iter().any(|stage| *stage == ("generate".into(), "run".into())));
        let four = desk.numbers("runs/tiny/metrics.jsonl");
        assert_eq!(one.len(), four.len());
        for (one, four) in one.iter().zip(&four) {
            let [one, four] = [one, four].map(|line| serde_json::from_str::<Value>(line).unwrap());
            for (key, one) in one.as_object().unwrap() {
                let (one, four) = (one.as_f64().unwrap(), four[key].as_f64().unwrap());
                assert!((one - four).abs() <= 1e-4 * one.abs(), "{key}: {one} and {four}");
            }
        }
    }
    let checkpoint = desk.path("runs/tiny/checkpoints/train/checkpoint");
    assert!(checkpoint.join("optimizer-00003.safetensors").is_file());
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "--no-cache"], 0);
    let first = desk.numbers("runs/tiny/metrics.jsonl");
    let before = desk.json("tiny.lock");
    desk.run(&["tiny.yaml", "--no-cache"], 0);
    assert_eq!(desk.numbers("runs/tiny/metrics.jsonl"), first);
    assert_eq!(desk.json("tiny.lock"), before);
    assert!(desk.states().iter().all(|(_, state)| state == "run"));
}

/// The state of a run in the middle of its training, of which every command tells the same.
fn standing(desk: &Desk) -> String {
    let list: Value = serde_json::from_str(&desk.run(&["runs", "--json"], 0)).unwrap();
    let run = &list[0];
    let (state, progress) = (word(&run["summary"]["state"]), &run["progress"]);
    assert_eq!((&progress["stage"], &progress["steps"]), (&"train".into(), &300.into()), "{list}");
    let step = progress["step"].as_u64().unwrap();
    assert!((1..=300).contains(&step), "{step}");
    let table = desk.run(&["runs"], 0);
    assert!(table.contains(&format!("{state} (")) && table.contains(" of 300)"), "{table}");
    let shown = desk.run(&[&["status"], LONG].concat(), 4);
    let train = shown.lines().find(|line| line.contains("train  ")).unwrap();
    assert!(train.contains(&state) && shown.contains(" of 300"), "{shown}");
    let process = progress["process"].as_str().map(|words| words.starts_with("process "));
    assert_eq!(process, (state == "running").then_some(true), "{progress}");
    state
}

#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_bits() {
    let whole = Desk::new();
    whole.run(LONG, 0);

    let killed = Desk::new();
    let mut child = killed.in_the_middle();
    assert_eq!(standing(&killed), "running");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(standing(&killed), "interrupted");
    assert!(!killed.path("runs/tiny/checkpoints").exists());
    assert!(killed.run(&["status", LONG[0], LONG[1], LONG[2]], 4).contains("interrupted"));
    let output = killed.run(LONG, 0);
    assert!(output.contains("going on after step"), "{output}");

    // A run that a signal asks to stop saves its place itself.
    let stopped = Desk::new();
    let mut child = stopped.in_the_middle();
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(stopped.json("runs/tiny/summary.json")["state"], "interrupted");
    assert_eq!(standing(&stopped), "interrupted");
    assert!(stopped.run(LONG, 0).contains("going on after step"));

    let model = "runs/tiny/checkpoints/train/checkpoint/model-00000.safetensors";
    for desk in [&killed, &stopped] {
        let metrics = "runs/tiny/metrics.jsonl";
        assert_eq!(desk.numbers(metrics), whole.numbers(metrics));
        assert!(fs::read(desk.path(model)).unwrap() == fs::read(whole.path(model)).unwrap());
    }
}

#[test]
fn wrong_commands_and_recipes_end_with_2_and_say_what_to_do() {
    let desk = Desk::new();
    let check = |words: &[&str], expected: &str| {
        let output = desk.output(words);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {stderr}");
        assert!(stderr.contains(expected), "{words:?}: {stderr}");
    };
    check(&["plam", "tiny.yaml"], "did you mean `sft-run plan`?");
    check(&["tinny.yaml"], "did you mean `tiny.yaml`?");
    check(&["plan"], "required");
    check(&["tiny.yaml", "model.num_layer=3"], "did you mean `num_layers`?");
    check(&["tiny.yaml", "+model.hiden_size=3"], "hidden_size");
    check(&["tiny.yaml", "--var", "x"], "--var NAME=VALUE");
    check(&["tiny.yaml", "--force", "trian"], "did you mean `train`? the stages are");
    check(&["tiny.yaml", "stages.tokenize.tokenize.sources.0.rows=gone.jsonl"], "gone.jsonl");
    check(&["tiny.yaml", "trainer.accelerator=gpu"], "GPU");
    check(&["generate", "."], "holds no checkpoint");
    // Nothing was begun.
    assert!(!desk.path("runs").exists() && !desk.path("tiny.lock").exists());

    let json = desk.run(&["tiny.yaml", "model.num_layer=3", "--json"], 2);
    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&document["exit_code"], &document["problems"][0]["code"]),
        (&2.into(), &"override::unknown_key".into())
    );
    let json: Value = serde_json::from_str(&desk.run(&["--json", "gone.yaml"], 2)).unwrap();
    assert_eq!(json["error"]["code"], "cli::wrong");
}

#[test]
fn a_recipe_for_gpus_and_data_elsewhere_is_refused_at_once() {
    let desk = Desk::new();
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/megatron_1.3b.yaml");
    let recipe = recipe.to_str().unwrap();
    let cache = desk.path("cache");
    let output = desk.output(&[recipe, "--cache-dir", cache.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("8 GPUs") && stderr.contains("model.data.data_prefix"), "{stderr}");
    assert!(stderr.contains("model.tokenizer.vocab_file"), "{stderr}");
    assert!(stderr.lines().count() < 120, "{stderr}");
    assert!(!desk.path("runs").exists());
    desk.run(&["validate", recipe], 0);
    desk.run(&["plan", recipe, "--cache-dir", cache.to_str().unwrap()], 4);
}

#[test]
fn other_commands_answer() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", "-q"], 0);
    let bench = desk.run(&["bench", "tiny.yaml", "--steps", "3", "--warmup", "1", "--json"], 0);
    let bench: Value = serde_json::from_str(&bench).unwrap();
    assert!(bench["tokens_per_second"].as_f64().unwrap() > 0.0 && bench["steps"] == 3);
    assert!(desk.run(&["inspect", "runs/tiny"], 0).contains("embedding"));
    let generated = desk.run(&["generate", "runs/tiny", "--prompt", "an oak", "--json"], 0);
    assert!(generated.contains("an oak"), "{generated}");
    assert!(desk.run(&["plan", "tiny.yaml", "--graph", "mermaid"], 0).starts_with("flowchart"));
    assert!(
        desk.run(&["config", "tiny.yaml", "--resolve", "-p", "model.optim.lr"], 0)
            .contains("0.001")
    );
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/recipe.authoring.json");
    assert_eq!(desk.run(&["schema"], 0), fs::read_to_string(schema).unwrap());
    assert!(desk.run(&["schema", "--keys"], 0).contains("model.optim.lr"));
    assert!(desk.run(&["doctor"], 0).contains("processor"));
    assert!(desk.run(&["completions", "bash"], 0).contains("sft-run"));
    assert!(desk.run(&["--help"], 0).contains("Exit codes"));
    desk.run(&["tiny.yaml", "model.optim.lr=5e-4", "-q"], 0);
    // The last run's outputs and the lock file's stay; the cache holds both.
    let stays = desk.run(&["gc", "tiny.yaml"], 0);
    assert!(stays.contains("removed 0 outputs") && stays.contains("tiny.lock names it"), "{stays}");
    desk.run(&["tiny.yaml", "-q"], 0);
    let would = desk.run(&["gc", "tiny.yaml", "--dry-run"], 0);
    assert_eq!(would.matches("would go").count(), 3, "{would}");
    assert!(would.contains("KiB") && would.contains("just now"), "{would}");
    assert!(desk.run(&["gc", "tiny.yaml"], 0).contains("removed 3 outputs"));
    assert!(desk.run(&["tiny.yaml"], 0).contains("nothing to do"));
}

#[cfg(unix)]
#[test]
fn a_metric_program_that_crashes_keeps_what_was_computed() {
    let desk = Desk::new();
    let script = "read line; echo 1; read line; echo 0; echo it is full >&2; exit 9";
    atomic_file::write(&desk.path("score.sh"), script.as_bytes()).unwrap();
    let metrics = "stages.evaluate.evaluate.metrics=[exact_match,loss,\
                   {name: judge,command: [sh,score.sh]}]";
    let output = desk.output(&["tiny.yaml", metrics]);
    let told = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("`judge`"), "{told}");
    assert_eq!(told.matches("row 3 of").count(), 1, "the error is told once: {told}");
    assert!(told.contains("it is full"), "{told}");
    let summary = desk.json("runs/tiny/summary.json");
    let stage = summary["stages"].as_array().unwrap().iter().find(|one| one["name"] == "evaluate");
    let stage = stage.unwrap();
    assert_eq!(stage["state"], "failed");
    assert!(stage["metrics"]["loss"].as_f64().unwrap() > 1.0, "{stage}");
    assert!(stage["metrics"]["judge"].is_null(), "{stage}");
    assert!(desk.text("runs/tiny/samples.jsonl").contains("exact_match"));
    assert!(desk.text("runs/tiny/failed/evaluate/samples.jsonl").contains("exact_match"));

    // The script is an input: put right, it runs again, and the failure is gone.
    let right = "while read -r line; do echo 0.25; done";
    atomic_file::write(&desk.path("score.sh"), right.as_bytes()).unwrap();
    desk.run(&["tiny.yaml", metrics], 0);
    let summary = desk.json("runs/tiny/summary.json");
    let stage = summary["stages"].as_array().unwrap().iter().find(|one| one["name"] == "evaluate");
    assert_eq!(stage.unwrap()["metrics"]["judge"], 0.25);
    assert!(!desk.path("runs/tiny/failed").exists());
}

/// A mapping that asks for metrics at every validation.
const VALIDATE: &str = "+stages.train.train.validate={data: tokenize,limit: 6,\
                        metrics: [exact_match,token_accuracy],gen_kwargs: {max_length: 4}}";

#[test]
fn metrics_between_steps_are_logged_and_leave_the_losses_alone() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml"], 0);
    let bits = |lines: &[String]| -> Vec<[Option<u64>; 3]> {
        let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let names = ["reduced_train_loss", "grad_norm", "val_loss"];
        lines.map(|line| names.map(|name| line[name].as_f64().map(f64::to_bits))).collect()
    };
    let without = bits(&desk.numbers("runs/tiny/metrics.jsonl"));
    assert!(without[0][0].is_some() && without[0][1].is_some(), "a loss and a gradient norm");
    desk.run(&["tiny.yaml", VALIDATE], 0);
    let lines = desk.numbers("runs/tiny/metrics.jsonl");
    assert_eq!(bits(&lines), without, "the same bits with generation between the steps");
    let validations: Vec<&String> = lines.iter().filter(|line| line.contains("val_loss")).collect();
    assert_eq!(validations.len(), 3);
    for line in validations {
        assert!(line.contains("val_metrics/avg_exact_match"), "{line}");
        assert!(line.contains("val_metrics/avg_token_accuracy"), "{line}");
    }
    assert!(desk.text("runs/tiny/report.html").contains("val_metrics/avg_exact_match"));
    assert!(desk.text("runs/tiny/samples.jsonl").contains("train, step 4"));
}

#[test]
fn the_best_checkpoint_by_a_metric_of_validations_is_kept() {
    let desk = Desk::new();
    let keep = "+exp_manager.checkpoint_callback_params=\
                {monitor: val_metrics/avg_token_accuracy,mode: max,save_top_k: 1,save_best_model: true}";
    // Saved where it validates: elsewhere a checkpoint has the score of the validation before it.
    let every = "stages.train.train.checkpoint_every=4";
    desk.run(&["tiny.yaml", VALIDATE, keep, every], 0);
    let lines = desk.numbers("runs/tiny/metrics.jsonl");
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let accuracy = |line: Value| {
        Some((line["val_metrics/avg_token_accuracy"].as_f64()?, line["step"].as_u64()?))
    };
    // The first of equals stays.
    let better = |best: (f64, u64), one: (f64, u64)| if one.0 > best.0 { one } else { best };
    let (best, step) = lines.filter_map(accuracy).reduce(better).unwrap();
    let name = format!("--val_metrics_avg_token_accuracy={best:.4}-step={step}-");
    let kept = fs::read_dir(desk.path("runs/tiny/checkpoints/train/kept")).unwrap();
    let kept: Vec<String> =
        kept.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(kept.len() == 1 && kept[0].contains(&name), "{kept:?}, not {name}");
    let wrong = desk.output(&["tiny.yaml", keep]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("which `train` does not compute"));
}

#[test]
fn training_stops_early_when_the_watched_value_gets_no_better() {
    let desk = Desk::new();
    let stops = [
        "tiny.yaml",
        "trainer.max_steps=40",
        "+exp_manager.create_early_stopping_callback=true",
        "+exp_manager.early_stopping_callback_params={monitor: val_loss,mode: max,patience: 2}",
    ];
    let told = desk.run(&stops, 0);
    assert!(told.contains("stopped early after step 12"), "{told}");
    let lines = desk.numbers("runs/tiny/metrics.jsonl");
    assert_eq!(lines.len(), 12 + 3, "three validations: the first is the best");
    let wrong =
        ["tiny.yaml", stops[2], "+exp_manager.early_stopping_callback_params={monitor: bleu}"];
    let output = desk.output(&wrong);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("watches `bleu`"), "{}", text(&output.stderr));
}

#[test]
fn preview_shows_which_tokens_are_learned() {
    let desk = Desk::new();
    let shown = desk.run(&["preview", "tiny.yaml", "-n", "2"], 0);
    assert_eq!(shown.matches("kind · ").count(), 2, "{shown}");
    assert!(shown.contains('«') && shown.contains("% learned") && shown.contains("% filled"));
    let shown: Value =
        serde_json::from_str(&desk.run(&["preview", "tiny.yaml", "--json"], 0)).unwrap();
    let tokens = shown[0]["preview"]["samples"][0]["tokens"].as_array().unwrap().clone();
    let prompt = shown[0]["preview"]["samples"][0]["prompt_tokens"].as_u64().unwrap();
    for (place, token) in tokens.iter().enumerate() {
        assert_eq!(token["learned"], place as u64 >= prompt, "the answer and its end are learned");
    }
    let empty = "stages.tokenize.tokenize.sources=[{rows: nouns.jsonl,\
                 split: {by: gloss,validation: 0.1,test: 0.1},tasks: [{name: kind,prompt: a,answer: '',\
                 add_eos: false}]}]";
    let shown = desk.run(&["preview", "tiny.yaml", empty], 0);
    assert!(shown.contains("every token of this sample is masked"), "{shown}");
}

#[test]
fn preview_tells_rows_that_tokenize_would_refuse() {
    let desk = Desk::new();
    let rows = format!("{}{{\"term\": \"oak\"}}\n", desk.text("nouns.jsonl"));
    atomic_file::write(&desk.path("nouns.jsonl"), rows.as_bytes()).unwrap();
    let refused = desk.output(&["preview", "tiny.yaml"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stderr);
    assert!(told.contains("1 of 266 rows") && told.contains("no field `gloss`"), "{told}");
}

#[test]
fn compare_tells_differences_with_intervals_and_the_answers_that_changed() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml"], 0);
    desk.run(&["tiny.yaml", "model.seed=8"], 0);
    let pair = ["compare", "runs/tiny/run_0", "runs/tiny"];
    let told = desk.run(&pair, 0);
    assert!(told.contains("95% interval") && told.contains("answers differ"), "{told}");
    assert!(told.contains("the environments are the same"), "{told}");
    let path = desk.path("runs/tiny/run_0/summary.json");
    let mut summary: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    summary["environment"]["cpu"] = "Abacus".into();
    fs::write(&path, summary.to_string()).unwrap();
    assert!(desk.run(&pair, 0).contains("Abacus"));
    let document: Value =
        serde_json::from_str(&desk.run(&[pair[0], pair[1], pair[2], "--json"], 0)).unwrap();
    let evaluation = &document["answers"][0];
    assert_eq!(evaluation["stage"], "evaluate");
    assert!(evaluation["pairs"].as_u64().unwrap() > 10, "{evaluation}");
    assert_eq!(evaluation["differences"][0]["metric"], "exact_match");
    assert!(!evaluation["changed"].as_array().unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn the_commands_that_a_run_ends_with_can_be_typed() {
    for (name, keeps) in [("a name", true), ("plain", false)] {
        let desk = Desk::new();
        let folder = format!("++exp_manager.explicit_log_dir='runs/{name}'");
        let keep = format!("exp_manager.create_checkpoint_callback={keeps}");
        let shown = desk.run(&["tiny.yaml", &folder, &keep, "trainer.max_steps=2"], 0);
        let (_, next) = shown.split_once("next\n").unwrap();
        for line in next.lines().filter(|line| line.contains("sft-run ")) {
            let command = line.trim().replace("sft-run ", "\"$SFT_RUN\" ");
            let mut shell = Command::new("sh");
            shell.args(["-c", &command]).env("SFT_RUN", env!("CARGO_BIN_EXE_sft-run"));
            shell.current_dir(desk.path(".")).env_remove("SFT_RUN_CACHE").stdin(Stdio::null());
            let output = shell.output().unwrap();
            let told = text(&output.stderr);
            // A plan with something to do ends with 4.
            assert!(matches!(output.status.code(), Some(0 | 4)), "{command}\n{told}");
        }
        assert!(next.contains("sft-run generate"), "{next}");
    }
}

#[test]
fn a_file_that_is_here_but_not_beside_the_recipe_is_offered_by_its_path_from_there() {
    let desk = Desk::new();
    fs::create_dir_all(desk.path("runs/first")).unwrap();
    fs::create_dir(desk.path("recipes")).unwrap();
    for name in ["tiny.yaml", "nouns.jsonl", "tokenizer.json"] {
        fs::rename(desk.path(name), desk.path("recipes").join(name)).unwrap();
    }
    let plan = |path: &str| {
        let resumed = format!("+model.resume_from_checkpoint={path}");
        desk.run(&["plan", "recipes/tiny.yaml", &resumed], 4)
    };
    let told = plan("runs/first");
    let offered = "paths are relative to the recipe's folder, `recipes`: set \
                   model.resume_from_checkpoint to `../runs/first`";
    assert!(told.contains(offered), "{told}");
    let told = plan("runs/second");
    assert!(told.contains("(relative to the recipe's folder, `recipes`)"), "{told}");
}
