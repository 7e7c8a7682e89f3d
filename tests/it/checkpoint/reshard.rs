//! Every layout to every other, to the bit; no more memory than a band takes.

use super::{architecture, save, values};
use sft_run::base::digest::Digest;
use sft_run::checkpoint::manifest::Header;
use sft_run::checkpoint::native::Checkpoint;
use sft_run::checkpoint::{reshard, whole};
use sft_run::spec::optimization::Degrees;
use std::fs;
use std::path::Path;

fn layout(tensor: usize, pipeline: usize) -> Degrees {
    Degrees { tensor, pipeline, ..Degrees::SINGLE }
}

/// Reshards checkpoint `from` as `to`, which must hold the same model after.
fn convert(from: &Path, to: &Path, layout: Degrees) -> u64 {
    let checkpoint = Checkpoint::open(from).unwrap();
    let header = Header { layout, ..checkpoint.manifest().header.clone() };
    let (mut last, mut all) = (0, 0);
    reshard::reshard(&checkpoint, to, header, &mut |done, total| {
        assert!(last < done && done <= total);
        (last, all) = (done, total);
    })
    .unwrap();
    assert_eq!(last, all, "the progress ends at the end");
    all
}

fn assert_same_model(path: &Path) {
    let checkpoint = Checkpoint::open(path).unwrap();
    checkpoint.verify().unwrap();
    assert_eq!(whole::read_weights(&checkpoint, &architecture()).unwrap(), values());
    let [first, second] = whole::read_moments(&checkpoint, &architecture()).unwrap();
    let times = |factor: f32| values().iter().map(|value| value * factor).collect::<Vec<_>>();
    assert_eq!([first, second], [times(2.0), times(3.0)]);
}

#[test]
fn every_pair_of_layouts_round_trips_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let start = folder.path().join("start");
    save(&start);
    let degrees = [1, 2, 4];
    let mut layouts: Vec<Degrees> = degrees
        .iter()
        .flat_map(|tensor| degrees.map(|pipeline| layout(*tensor, pipeline)))
        .collect();
    // Replicas with a spread optimizer state, and interleaved stages.
    layouts.push(Degrees { data: 3, tensor: 2, ..Degrees::SINGLE });
    layouts.push(Degrees { data: 2, pipeline: 2, virtual_pipeline: 2, ..Degrees::SINGLE });
    let direct: Vec<_> = layouts
        .iter()
        .enumerate()
        .map(|(number, layout)| {
            let path = folder.path().join(format!("direct-{number}"));
            convert(&start, &path, *layout);
            assert_same_model(&path);
            (path.clone(), Digest::of_folder(&path).unwrap())
        })
        .collect();
    for (from, _) in &direct {
        for (layout, (_, expected)) in layouts.iter().zip(&direct) {
            let path = folder.path().join("again");
            convert(from, &path, *layout);
            assert_eq!(Digest::of_folder(&path).unwrap(), *expected, "{from:?} to {layout:?}");
            fs::remove_dir_all(&path).unwrap();
        }
    }
}

#[test]
fn a_layout_cuts_the_model_into_files_of_its_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let (start, cut) = (folder.path().join("start"), folder.path().join("cut"));
    save(&start);
    let bytes = convert(&start, &cut, Degrees { data: 2, ..layout(4, 2) });
    let checkpoint = Checkpoint::open(&cut).unwrap();
    let files: Vec<_> = checkpoint.manifest().files.keys().cloned().collect();
    let of = |kind: &str| files.iter().filter(|name| name.starts_with(kind)).count();
    // One file of weights a model-parallel rank, one of optimizer state a rank.
    assert_eq!((of("model-"), of("optimizer-")), (8, 16), "{files:?}");
    // Padding of the vocabulary is in no file: three rows of two tables.
    assert_eq!(bytes, 3 * 4 * (values().len() as u64 - 2 * 3 * 12));
    let embedding = &checkpoint.manifest().tensors["embedding.word_embeddings.weight"];
    let rows: Vec<_> =
        embedding.pieces.iter().map(|piece| piece.slice.clone().unwrap().ranges).collect();
    assert_eq!(rows, [vec![0..4], vec![4..8], vec![8..12], vec![12..13]]);
}

#[test]
fn layouts_that_do_not_divide_the_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let start = folder.path().join("start");
    save(&start);
    let checkpoint = Checkpoint::open(&start).unwrap();
    let check = |layout: Degrees, expected: &str| {
        let header = Header { layout, ..checkpoint.manifest().header.clone() };
        let target = folder.path().join("target");
        let error = reshard::reshard(&checkpoint, &target, header, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!target.exists());
    };
    check(layout(3, 1), "num_query_groups 4 cannot be divided among 3 tensor-parallel ranks");
    check(layout(1, 3), "4 layers cannot be divided among 3 pipeline chunks");
    check(layout(8, 1), "num_query_groups 4 cannot be divided among 8");
}
