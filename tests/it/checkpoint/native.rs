//! What is saved is read, to the bit; everything else is named and refused.

use super::{architecture, save, values};
use sft_run::base::atomic_file;
use sft_run::base::digest::Digest;
use sft_run::checkpoint::native::Checkpoint;
use sft_run::checkpoint::source::Source;
use sft_run::checkpoint::whole;
use sft_run::layout::slice::Slice;
use std::fs;
use std::path::{Path, PathBuf};

fn saved() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    save(&path);
    (folder, path)
}

/// Using the checkpoint fails with this message.
fn refused(path: &Path, message: &str) {
    let used = Checkpoint::open(path).and_then(|checkpoint| checkpoint.verify());
    let error = used.expect_err(message).to_string();
    assert!(error.contains(message), "{error}");
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    atomic_file::write(path, &bytes).unwrap();
}

#[test]
fn what_was_saved_is_read() {
    let (folder, path) = saved();
    // A stage's output folder stands for the checkpoint in it.
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    checkpoint.verify().unwrap();
    let header = &checkpoint.manifest().header;
    assert_eq!((header.progress.consumed_samples, &header.architecture), (24, &architecture()));
    assert_eq!(whole::read_weights(&checkpoint, &architecture()).unwrap(), values());
    let [first, second] = whole::read_moments(&checkpoint, &architecture()).unwrap();
    let times = |factor: f32| values().iter().map(|value| value * factor).collect::<Vec<_>>();
    assert_eq!([first, second], [times(2.0), times(3.0)]);
    // The files are safetensors to any program.
    let bytes = fs::read(path.join("model-00000.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let name = "embedding.word_embeddings.weight";
    assert_eq!(tensors.tensor(name).unwrap().shape(), [13, 12]);
    let slice = Slice { dim: 1, ranges: vec![2..4, 7..8], flat: Some(4..7) };
    let found = checkpoint.read_slice(name, &slice).unwrap();
    let expected = [values()[12 + 3], values()[12 + 7], values()[24 + 2]];
    assert_eq!(found, expected.map(f32::to_le_bytes).concat());
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    let folders = [saved(), saved()];
    let [one, two] = folders.each_ref().map(|(_, path)| Digest::of_folder(path).unwrap());
    assert_eq!(one, two);
}

#[test]
fn another_vocabulary_padding_is_the_same_model() {
    let (_folder, path) = saved();
    let wider =
        sft_run::spec::architecture::Architecture { padded_vocab_size: 32, ..architecture() };
    let checkpoint = Checkpoint::open(&path).unwrap();
    let found = whole::read_weights(&checkpoint, &wider).unwrap();
    assert_eq!(found[..13 * 12], values()[..13 * 12]);
    assert!(found[13 * 12..32 * 12].iter().all(|value| *value == 0.0));
    assert_eq!(found[32 * 12..33 * 12], values()[16 * 12..17 * 12]);
}

#[test]
fn every_kind_of_damage_is_named() {
    let (_folder, path) = saved();
    let file = path.join("optimizer-00000.safetensors");
    change(&file, |bytes| *bytes.last_mut().unwrap() ^= 1);
    refused(&path, "in optimizer-00000.safetensors is damaged (its hash differs");
    change(&file, |bytes| bytes.truncate(bytes.len() / 2));
    refused(&path, "optimizer-00000.safetensors is damaged (");
    fs::remove_file(&file).unwrap();
    refused(&path, "optimizer-00000.safetensors is missing");

    let (_folder, path) = saved();
    change(&path.join("model-00000.safetensors"), |bytes| bytes[9] ^= 1);
    refused(&path, "model-00000.safetensors");

    let manifest = path.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        atomic_file::write(&manifest, text.replacen(from, to, 1).as_bytes()).unwrap();
    };
    with("\"step\": 3", "\"step\": 4");
    refused(&path, "manifest.json is damaged (its hash differs from what it says)");
    with("\"version\": 2", "\"version\": 1");
    refused(&path, "its version is 1, this program reads version 2");
    atomic_file::write(&manifest, b"{\"format\": 1}").unwrap();
    refused(&path, "does not say");
    atomic_file::write(&manifest, &text.as_bytes()[..text.len() / 2]).unwrap();
    refused(&path, "manifest.json is damaged");
    fs::remove_file(&manifest).unwrap();
    refused(&path, "is not a checkpoint of sft-run, Hugging Face, NeMo, Megatron-LM or GGUF");
}

#[test]
fn every_flipped_bit_is_seen() {
    let (_folder, path) = saved();
    for name in ["manifest.json", "model-00000.safetensors"] {
        let file = path.join(name);
        let whole = fs::read(&file).unwrap();
        for place in (0..whole.len()).step_by(whole.len() / 97 + 1) {
            change(&file, |bytes| bytes[place] ^= 1 << (place % 8));
            let used = Checkpoint::open(&path).and_then(|checkpoint| checkpoint.verify());
            // Between two tokens of JSON one white space is as good as another.
            let blank = whole[place].is_ascii_whitespace();
            assert!(used.is_err() || (blank && name == "manifest.json"), "{name} {place}");
            atomic_file::write(&file, &whole).unwrap();
        }
    }
}

#[test]
fn manifests_that_lie_are_refused_before_memory_is_taken() {
    // The hash in a manifest guards against damage; one made on purpose carries a right hash.
    let check = |from: &str, to: &str, message: &str| {
        let (_folder, path) = saved();
        let manifest = path.join("manifest.json");
        let text = fs::read_to_string(&manifest).unwrap();
        assert!(text.contains(from), "{from}");
        let changed = text.replacen(from, to, 1);
        let mut value: serde_json::Value = serde_json::from_str(&changed).unwrap();
        value.as_object_mut().unwrap().remove("blake3");
        let hashed = sft_run::base::canonical_json::to_string(&value);
        value["blake3"] = Digest::of_bytes(hashed.as_bytes()).to_string().into();
        atomic_file::write(&manifest, value.to_string().as_bytes()).unwrap();
        refused(&path, message);
    };
    check("\"num_layers\": 4", "\"num_layers\": 1048576", "tensors of 1048576 layers are missing");
    check("\"num_query_groups\": 4", "\"num_query_groups\": 0", "num_query_groups is 0");
    check("\"hidden_size\": 12", "\"hidden_size\": 18446744073709551615", "hidden_size is");
    check("\"file\": \"optimizer-00000", "\"file\": \"../secret-00000", "its file is not listed");
    check("\"optimizer-00000.safetensors\": ", "\"../x\": ", "no name for a file");
    check("\"F32\"", "\"I64\"", "numbers of format I64 are not read");
    check("\"num_layers\": 4", "\"num_layers\": 5", "tensor `");
}

#[test]
fn other_programs_are_named() {
    let foreign = |name: &str, message: &str| {
        let folder = tempfile::tempdir().unwrap();
        atomic_file::write(&folder.path().join(name), b"x").unwrap();
        refused(folder.path(), message);
    };
    foreign(
        "config.json",
        "is a Hugging Face checkpoint, and a checkpoint of sft-run is needed here",
    );
    foreign("model_config.yaml", "is a NeMo checkpoint");
    foreign("latest_checkpointed_iteration.txt", "is a Megatron-LM checkpoint");
    foreign("mp_rank_00/model_weights.ckpt", "is a checkpoint cut into ranks");
    foreign("notes.txt", "is not a checkpoint of sft-run, Hugging Face, NeMo, Megatron-LM or GGUF");
}
