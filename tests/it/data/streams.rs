//! Token streams: windows, resets, blends.

use sft_run::data::feed::{Blend, Feed, Ordering};
use sft_run::data::indexed::{IndexedFile, Writer};
use sft_run::data::sequences::{Sequence, Sequences};
use sft_run::data::stream::{StreamOptions, TokenStream};
use sft_run::spec::job::Split;
use std::path::Path;
use std::sync::Arc;

const PLAIN: StreamOptions = StreamOptions {
    seq_length: 4,
    reset_position_ids: false,
    reset_attention_mask: false,
    eod_mask_loss: false,
};

/// A token file without a mask, as Megatron's tools write it.
fn write(prefix: &Path, documents: &[&[u32]]) {
    let mut writer = Writer::create(prefix, 100).unwrap();
    for document in documents {
        writer.sequence(document, &vec![true; document.len()]).unwrap();
        writer.end_document();
    }
    writer.finish().unwrap();
    std::fs::remove_file(prefix.with_extension("mask")).unwrap();
}

fn stream(documents: &[&[u32]], options: StreamOptions) -> Vec<Sequence> {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("x");
    write(&prefix, documents);
    let file = Arc::new(IndexedFile::open(&prefix).unwrap());
    let stream = TokenStream::new(file, 0..documents.len(), options).unwrap();
    (0..stream.count()).map(|at| stream.sequence(at).unwrap()).collect()
}

const DOCUMENTS: &[&[u32]] = &[&[1, 2, 0], &[3, 4, 5, 6, 0], &[7, 0]];

#[test]
fn windows_share_one_token_and_cross_documents() {
    let sequences = stream(DOCUMENTS, PLAIN);
    // 10 tokens: (10 - 1) / 4 windows.
    assert_eq!(sequences.len(), 2);
    assert_eq!(
        (&sequences[0].tokens[..], &sequences[0].labels[..]),
        (&[1, 2, 0, 3][..], &[2, 0, 3, 4][..])
    );
    assert_eq!(
        (&sequences[1].tokens[..], &sequences[1].labels[..]),
        (&[4, 5, 6, 0][..], &[5, 6, 0, 7][..])
    );
    assert_eq!(sequences[0].positions, [0, 1, 2, 3]);
    assert_eq!(sequences[0].segments, [0, 4]);
    assert!(sequences[0].loss_mask.iter().all(|learned| *learned));
}

#[test]
fn documents_can_be_kept_apart() {
    // Rules of `get_ltor_masks_and_position_ids`, by hand: the end of document is input 2.
    let all = StreamOptions {
        reset_position_ids: true,
        reset_attention_mask: true,
        eod_mask_loss: true,
        ..PLAIN
    };
    let sequences = stream(DOCUMENTS, all);
    assert_eq!(sequences[0].positions, [0, 1, 2, 0]);
    assert_eq!(sequences[0].segments, [0, 3, 4]);
    assert_eq!(sequences[0].loss_mask, [true, true, false, true]);
    // Here it is the last input: nothing follows that could be reset.
    assert_eq!(sequences[1].positions, [0, 1, 2, 3]);
    assert_eq!(sequences[1].segments, [0, 4]);
    assert_eq!(sequences[1].loss_mask, [true, true, true, false]);
    let positions = stream(DOCUMENTS, StreamOptions { reset_position_ids: true, ..PLAIN });
    assert_eq!(positions[0].positions, [0, 1, 2, 0]);
    assert_eq!((&positions[0].segments[..], positions[0].loss_mask[2]), (&[0, 4][..], true));
}

#[test]
fn the_end_of_document_must_be_known_when_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("x");
    write(&prefix, &[&[1, 2, 0], &[3, 4, 5, 6]]);
    let file = Arc::new(IndexedFile::open(&prefix).unwrap());
    assert!(TokenStream::new(file.clone(), 0..2, PLAIN).is_ok());
    let options = StreamOptions { eod_mask_loss: true, ..PLAIN };
    let error = TokenStream::new(file, 0..2, options).unwrap_err().to_string();
    assert!(error.contains("do not all end with the same token"), "{error}");
}

#[test]
fn a_blend_draws_by_weight_and_splits_by_documents() {
    let folder = tempfile::tempdir().unwrap();
    let prefixes = [folder.path().join("a"), folder.path().join("b.c")];
    let low: Vec<Vec<u32>> = (0..10).map(|at| vec![at; 9]).collect();
    let high: Vec<Vec<u32>> = (50..60).map(|at| vec![at; 9]).collect();
    for (prefix, documents) in prefixes.iter().zip([&low, &high]) {
        let documents: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
        let mut writer = Writer::create(prefix, 100).unwrap();
        for document in documents {
            writer.sequence(document, &[true; 9]).unwrap();
            writer.end_document();
        }
        writer.finish().unwrap();
    }
    let blend = Blend {
        prefixes: &prefixes,
        weights: &[3.0, 1.0],
        splits: [8.0, 1.0, 1.0],
        options: PLAIN,
    };
    let ordering = Ordering { seed: 1, shuffle: true, seq_length: 4 };
    let mut train = Feed::prefixes(&blend, Split::Train, ordering).unwrap();
    let tokens: Vec<u32> =
        (0..40).flat_map(|number| train.sequence(number).unwrap().tokens).collect();
    let from_first = tokens.iter().filter(|token| **token < 50).count();
    assert_eq!(from_first, tokens.len() * 3 / 4);
    assert!(tokens.iter().all(|token| token % 50 < 8), "a held-out document is learned");
    // A part that is too small for a held-out document leaves the others as they are.
    let none = folder.path().join("small");
    let mut writer = Writer::create(&none, 100).unwrap();
    writer.sequence(&[7; 9], &[true; 9]).unwrap();
    writer.end_document();
    writer.finish().unwrap();
    let three = [prefixes[0].clone(), none.clone(), prefixes[1].clone()];
    let with_small = Blend { prefixes: &three, weights: &[3.0, 5.0, 1.0], ..blend };
    let [mut two, mut three] = [&blend, &with_small]
        .map(|blend| Feed::prefixes(blend, Split::Validation, ordering).unwrap());
    for number in 0..20 {
        let [two, three] = [&mut two, &mut three].map(|feed| feed.sequence(number).unwrap());
        assert_eq!(two.tokens, three.tokens);
    }
    let alone = Blend { prefixes: &[none], weights: &[1.0], ..blend };
    let empty = Feed::prefixes(&alone, Split::Validation, ordering).unwrap_err();
    assert!(empty.to_string().contains("has no sequences"), "{empty}");
    let mut test = Feed::prefixes(&blend, Split::Test, ordering).unwrap();
    let tokens = test.micro_batch(0..8).unwrap().tokens;
    assert!(tokens.iter().all(|token| token % 50 == 9));
}
