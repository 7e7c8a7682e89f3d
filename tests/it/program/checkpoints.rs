//! Checkpoints by the command line: a `.nemo` file at the end, a run that continues another's.

use super::Desk;
use std::fs;

const NEMO: &str = "+exp_manager.checkpoint_callback_params.save_nemo_on_train_end=true";

#[test]
fn a_nemo_file_of_the_end_speaks_as_the_checkpoint_does() {
    let desk = Desk::new();
    desk.run(&["tiny.yaml", NEMO], 0);
    let says = |path: &str| {
        desk.run(&["generate", path, "--prompt", "define oak:", "--max-length", "8", "--json"], 0)
    };
    let file = "runs/tiny/checkpoints/train/model.nemo";
    assert_eq!(says(file), says("runs/tiny/checkpoints/train"));
    assert!(desk.run(&["inspect", file], 0).contains("a NeMo checkpoint"));

    // NeMo's own archives do not say where padding begins: the tokenizer in them does.
    let mut archive = fs::read(desk.path(file)).unwrap();
    let key = b"\nvocab_size: ";
    let at = archive.windows(key.len()).position(|bytes| bytes == key).expect("a size");
    archive[at + 1] = b'#';
    fs::write(desk.path("padded.nemo"), archive).unwrap();
    let ids = |path: &str| {
        let told = desk.run(&["inspect", path], 0);
        told.split_whitespace().skip_while(|word| *word != "vocab_size").nth(1).map(str::to_owned)
    };
    assert_eq!(ids("padded.nemo").as_deref(), Some("512"));
    assert_ne!(ids(file), ids("padded.nemo"));
    assert_eq!(says("padded.nemo"), says(file));
    desk.run(&["convert", "padded.nemo", "folder", "--to", "hf"], 0);
    assert_eq!(says("folder"), says(file));
}

#[test]
fn a_run_continues_a_kept_checkpoint_of_another() {
    let desk = Desk::new();
    let keep = "+exp_manager.checkpoint_callback_params={save_top_k: -1, \
                monitor: reduced_train_loss, filename: 'at-{step}'}";
    let (create, steps) = ("exp_manager.create_checkpoint_callback=true", "trainer.max_steps=30");
    desk.run(&["tiny.yaml", create, keep, steps], 0);
    let kept = "runs/tiny/checkpoints/train/kept";
    let names = fs::read_dir(desk.path(kept)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = names.filter(|name| name.contains("step=10")).collect::<Vec<_>>().remove(0);
    let resume = format!("+model.resume_from_checkpoint='{kept}/{name}'");
    let other = "+exp_manager.name=more";
    let told = desk.run(&["tiny.yaml", other, steps, &resume], 0);
    assert!(told.contains("going on after step 10"), "{told}");
    let numbers = |name: &str| desk.numbers(&format!("runs/{name}/metrics.jsonl"));
    let (all, rest) = (numbers("tiny"), numbers("more"));
    assert_eq!(rest.as_slice(), &all[all.len() - rest.len()..]);
    let model = |name: &str| {
        let path = format!("runs/{name}/checkpoints/train/checkpoint/model-00000.safetensors");
        fs::read(desk.path(&path)).unwrap()
    };
    assert!(model("tiny") == model("more"));
    // Weights alone are refused before anything runs, and so is what is not there.
    let start = "+model.resume_from_checkpoint=tiny.yaml";
    let refused = desk.output(&["tiny.yaml", steps, start]);
    assert_eq!(refused.status.code(), Some(2));
    let told = super::text(&refused.stderr);
    assert!(told.contains("a checkpoint to continue from"), "{told}");
}
