//! Resharding beside `cp` of the same bytes; run by `tests/bench/reshard.sh`.

use super::architecture;
use sft_run::checkpoint::manifest::{Header, Progress};
use sft_run::checkpoint::native::{Checkpoint, Error};
use sft_run::checkpoint::reshard::reshard;
use sft_run::checkpoint::source::{Source, TensorFacts};
use sft_run::layout::parameters::table;
use sft_run::layout::slice::Slice;
use sft_run::spec::architecture::Architecture;
use sft_run::spec::optimization::Degrees;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A model of 1.3 billion parameters, 5 GB of F32.
fn large() -> Architecture {
    Architecture {
        num_layers: 24,
        hidden_size: 2048,
        ffn_hidden_size: 5504,
        num_attention_heads: 16,
        num_query_groups: 16,
        kv_channels: 128,
        vocab_size: 50257,
        padded_vocab_size: 50304,
        ..architecture()
    }
}

/// Numbers made up where they are asked for.
struct MadeUp(BTreeMap<String, TensorFacts>);

impl Source for MadeUp {
    fn path(&self) -> &Path {
        Path::new("made up")
    }

    fn tensors(&self) -> &BTreeMap<String, TensorFacts> {
        &self.0
    }

    fn read_slice(&self, name: &str, slice: &Slice) -> Result<Vec<u8>, Error> {
        let start = slice.runs(&self.0[name].shape).next().map_or(0, |run| run.start) as u32;
        let count = slice.element_count(&self.0[name].shape) as u32;
        let number = |at: u32| (start + at).wrapping_mul(2_654_435_761).to_le_bytes();
        Ok((0..count).flat_map(number).collect())
    }
}

fn make(target: &Path) {
    let fact = |row: sft_run::layout::parameters::Parameter| {
        let dtype = safetensors::Dtype::F32;
        (row.name.clone(), TensorFacts { shape: row.stored_shape(), dtype })
    };
    let source = MadeUp(table(&large()).into_iter().map(fact).collect());
    let header = Header {
        architecture: large(),
        progress: Progress::default(),
        layout: Degrees::SINGLE,
        training: None,
    };
    reshard(&source, target, header, &mut |_, _| {}).unwrap();
}

/// The most memory that this process has held since the last call, in MiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/clear_refs")
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"5"))
        .unwrap();
    kib >> 10
}

/// Seconds that `work` takes with everything on the disk at its beginning.
fn seconds(work: impl FnOnce()) -> f64 {
    assert!(Command::new("sync").status().unwrap().success());
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement of minutes on 20 GB of disk"]
#[expect(clippy::print_stdout, reason = "it shows what it measured")]
fn tp1_to_tp4_beside_cp() {
    let folder: PathBuf = std::env::var_os("SFT_BENCH_FOLDER").expect("SFT_BENCH_FOLDER").into();
    let [source, copy, cut] = ["source", "copy", "cut"].map(|name| folder.join(name));
    make(&source);
    let checkpoint = Checkpoint::open(&source).unwrap();
    let bytes: u64 = checkpoint.manifest().files.values().sum();
    let largest = checkpoint.tensors().values().map(|facts| facts.shape.iter().product::<usize>());
    println!("{:.2} GB, largest tensor {} MiB", bytes as f64 / 1e9, largest.max().unwrap() >> 18);
    for round in 1..=3 {
        let cp = seconds(|| {
            let done = Command::new("cp").arg("-r").args([&source, &copy]).status().unwrap();
            assert!(done.success());
            let files = fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap().path());
            assert!(Command::new("sync").args(files).status().unwrap().success());
        });
        fs::remove_dir_all(&copy).unwrap();
        peak();
        let reshard = seconds(|| {
            let checkpoint = Checkpoint::open(&source).unwrap();
            let layout = Degrees { tensor: 4, ..Degrees::SINGLE };
            let header = Header { layout, ..checkpoint.manifest().header.clone() };
            reshard(&checkpoint, &cut, header, &mut |_, _| {}).unwrap();
        });
        let peak = peak();
        fs::remove_dir_all(&cut).unwrap();
        let share = 100.0 * cp / reshard;
        println!(
            "round {round}: cp {cp:.1} s, TP1 to TP4 {reshard:.1} s, {share:.0}% of cp's speed, peak {peak} MiB"
        );
    }
    fs::remove_dir_all(&source).unwrap();
}
