//! Token files: round trips, and files that are broken on purpose.

use proptest::prelude::*;
use sft_run::data::indexed::{IndexedFile, TokenType, Writer};
use std::fs;
use std::path::Path;

type Documents = Vec<Vec<Vec<(u32, bool)>>>;

fn write(prefix: &Path, vocab_size: usize, documents: &Documents) {
    let mut writer = Writer::create(prefix, vocab_size).unwrap();
    for document in documents {
        for sequence in document {
            let (tokens, mask): (Vec<u32>, Vec<bool>) = sequence.iter().copied().unzip();
            writer.sequence(&tokens, &mask).unwrap();
        }
        writer.end_document();
    }
    writer.finish().unwrap();
}

fn read(prefix: &Path) -> Documents {
    let file = IndexedFile::open(prefix).unwrap();
    let sequence = |at| {
        let (tokens, mask) = (file.sequence(at).unwrap(), file.sequence_mask(at).unwrap());
        tokens.into_iter().zip(mask).collect()
    };
    (0..file.documents()).map(|document| file.document(document).map(sequence).collect()).collect()
}

#[test]
fn the_index_has_megatrons_layout() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("some.name");
    let sequence = |tokens: &[u32]| tokens.iter().map(|token| (*token, true)).collect::<Vec<_>>();
    let documents = vec![vec![sequence(&[1, 2]), sequence(&[3])], vec![sequence(&[258])]];
    write(&prefix, 50257, &documents);
    let expected = [
        &b"MMIDIDX\0\0"[..],
        &1u64.to_le_bytes(),
        &[8],
        &3u64.to_le_bytes(),
        &3u64.to_le_bytes(),
        &[2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        &0i64.to_le_bytes(),
        &4i64.to_le_bytes(),
        &6i64.to_le_bytes(),
        &0i64.to_le_bytes(),
        &2i64.to_le_bytes(),
        &3i64.to_le_bytes(),
    ]
    .concat();
    assert_eq!(fs::read(folder.path().join("some.name.idx")).unwrap(), expected);
    let tokens = fs::read(folder.path().join("some.name.bin")).unwrap();
    assert_eq!(tokens, [1, 0, 2, 0, 3, 0, 2, 1]);
    assert_eq!(read(&prefix), documents);
}

#[test]
fn large_vocabularies_take_four_bytes() {
    for (vocab_size, kind) in [(65_499, TokenType::U16), (65_500, TokenType::I32)] {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("x");
        write(&prefix, vocab_size, &vec![vec![vec![(65_000, false)]]]);
        assert_eq!(IndexedFile::open(&prefix).unwrap().token_type(), kind);
        assert_eq!(read(&prefix), [[[(65_000, false)]]]);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&folder.path().join("x"), 100).unwrap();
    assert!(writer.sequence(&[70_000], &[true]).is_err());
    assert!(writer.sequence(&[7], &[]).is_err());
}

#[test]
fn no_documents_and_empty_sequences_are_fine() {
    for documents in [vec![], vec![vec![]], vec![vec![vec![]], vec![vec![(7, true)], vec![]]]] {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("x"), 10, &documents);
        assert_eq!(read(&folder.path().join("x")), documents);
    }
}

#[test]
fn a_dataset_that_was_not_finished_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("x");
    let mut writer = Writer::create(&prefix, 10).unwrap();
    writer.sequence(&[1], &[true]).unwrap();
    drop(writer);
    let error = IndexedFile::open(&prefix).unwrap_err().to_string();
    assert!(error.starts_with("cannot open `") && error.contains("x.idx"), "{error}");
}

/// A good index of two sequences over 8 bytes of tokens, changed by `change`.
fn broken(change: impl Fn(&mut Vec<u8>)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("x");
    write(&prefix, 10, &vec![vec![vec![(1, true), (2, true)]], vec![vec![(3, true), (4, true)]]]);
    let path = folder.path().join("x.idx");
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    let error = IndexedFile::open(&prefix).unwrap_err().to_string();
    error.split_once(": ").unwrap().1.to_owned()
}

#[test]
fn broken_indices_are_refused_with_the_reason() {
    let put = |at: usize, value: &[u8]| {
        let value = value.to_vec();
        move |bytes: &mut Vec<u8>| bytes[at..at + value.len()].copy_from_slice(&value)
    };
    let check = |error: String, expected: &str| assert!(error.contains(expected), "{error}");
    check(broken(put(0, b"TNTIDX\0\0")), "legacy fairseq index");
    check(broken(put(0, b"PK")), "not start with MMIDIDX");
    check(broken(put(9, &[2])), "version 2");
    check(broken(put(17, &[6])), "is a float");
    check(broken(put(17, &[9])), "type 9 is unknown");
    check(broken(put(18, &u64::MAX.to_le_bytes())), "sequences and");
    check(broken(put(26, &[4])), "take");
    check(broken(|bytes| bytes.truncate(20)), "fewer than a header");
    check(broken(|bytes| bytes.truncate(bytes.len() - 1)), "it has 81 bytes");
    check(broken(|bytes| bytes.extend([0, 0])), "multimodal");
    check(broken(put(34, &(-1i32).to_le_bytes())), "sequence 0 has -1 tokens");
    check(broken(put(34, &i32::MAX.to_le_bytes())), "sequence 0 has 2147483647 tokens");
    check(broken(put(42, &i64::MAX.to_le_bytes())), "at byte 9223372036854775807");
    check(broken(put(42, &(-2i64).to_le_bytes())), "at byte -2");
    check(broken(put(58, &[1])), "document boundary 0 is 1");
    check(broken(put(66, &[9])), "document boundary 2 is 2, after 9");
    check(broken(put(74, &[1])), "the last document ends at 1 of 2");
}

#[test]
fn a_mask_of_another_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("x");
    write(&prefix, 10, &vec![vec![vec![(1, true), (2, true)]]]);
    fs::write(folder.path().join("x.mask"), [1]).unwrap();
    let error = IndexedFile::open(&prefix).unwrap_err().to_string();
    assert!(error.contains("x.mask") && error.contains("1 bytes for 2 tokens"), "{error}");
    fs::remove_file(folder.path().join("x.mask")).unwrap();
    let file = IndexedFile::open(&prefix).unwrap();
    assert!(!file.has_mask());
    assert_eq!(file.sequence_mask(0).unwrap(), [true, true]);
}

#[test]
fn negative_tokens_and_tokens_out_of_range_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("x");
    write(&prefix, 100_000, &vec![vec![vec![(1, true), (2, true)]]]);
    let file = IndexedFile::open(&prefix).unwrap();
    assert!(file.sequence(1).is_err());
    assert!(file.append_tokens(0, 1..3, &mut Vec::new()).is_err());
    fs::write(folder.path().join("x.bin"), [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).unwrap();
    let file = IndexedFile::open(&prefix).unwrap();
    let error = file.sequence(0).unwrap_err().to_string();
    assert!(error.contains("token 1 of sequence 0 is -1"), "{error}");
}

fn documents() -> impl Strategy<Value = Documents> {
    let sequence = prop::collection::vec((0u32..70_000, any::<bool>()), 0..5);
    prop::collection::vec(prop::collection::vec(sequence, 0..4), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_is_written_is_read(documents in documents()) {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("x"), 100_000, &documents);
        prop_assert_eq!(read(&folder.path().join("x")), documents);
    }

    /// Any index over any tokens either opens, and then every sequence can be asked for, or is refused.
    #[test]
    fn hostile_indices_do_no_harm(
        changes in prop::collection::vec((9usize..90, any::<u8>()), 1..4),
        cut in 0usize..90,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("x");
        write(&prefix, 10, &vec![vec![vec![(1, true), (2, true)]], vec![vec![(3, true)], vec![]]]);
        let path = folder.path().join("x.idx");
        let mut bytes = fs::read(&path).unwrap();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if cut < 20 {
            bytes.truncate(bytes.len() - cut);
        }
        fs::write(&path, bytes).unwrap();
        if let Ok(file) = IndexedFile::open(&prefix) {
            for document in 0..file.documents() {
                for sequence in file.document(document) {
                    let _ = (file.sequence(sequence), file.sequence_mask(sequence));
                }
            }
        }
    }
}
