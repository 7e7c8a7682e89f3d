//! The zip form: `NAME/data.pkl`, and `NAME/data/KEY` for each storage, all uncompressed.

use super::tree::{Storages, collect};
use super::{LARGEST_PICKLE, TorchFile};
use crate::checkpoint::foreign::pickle;
use crate::checkpoint::foreign::stored::Piece;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use zip::{CompressionMethod, ZipArchive};

pub(super) fn read(file: &Piece) -> Result<TorchFile, String> {
    let entries = entries(file)?;
    let find = |ending: &str| entries.iter().find(|(name, _)| name.ends_with(ending));
    let (name, range) = find("/data.pkl").ok_or("its zip archive has no data.pkl")?;
    let root = name.trim_end_matches("data.pkl");
    if let Some(range) = entries.get(&format!("{root}byteorder"))
        && file.get(range.clone()) != Some(b"little")
    {
        return Err("its numbers are not little-endian".to_owned());
    }
    let bytes = file.part(range.clone()).ok_or("its data.pkl lies outside the file")?;
    if bytes.len() > LARGEST_PICKLE {
        return Err(format!("its data.pkl has {} bytes", bytes.len()));
    }
    let (values, top, _) = pickle::parse(&bytes).map_err(|error| error.to_string())?;
    let storage = |key: &str, _: usize| {
        let range = entries.get(&format!("{root}data/{key}"))?;
        file.part(range.clone())
    };
    collect(&values, top, &Storages(&storage))
}

/// Where the members lie. None is unpacked: a compressed one is refused.
fn entries(file: &Piece) -> Result<BTreeMap<String, Range<usize>>, String> {
    let damaged = |error: zip::result::ZipError| format!("its zip archive is damaged: {error}");
    let mut archive = ZipArchive::new(Cursor::new(&file[..])).map_err(damaged)?;
    let mut entries = BTreeMap::new();
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(damaged)?;
        let name = member.name().map_err(damaged)?.into_owned();
        if member.compression() != CompressionMethod::Stored || member.encrypted() {
            return Err(format!(
                "member `{name}` of its zip archive is compressed, which PyTorch never does"
            ));
        }
        let start = member.data_start().and_then(|start| usize::try_from(start).ok());
        let size = usize::try_from(member.size()).ok();
        let range = start.zip(size).and_then(|(start, size)| Some(start..start.checked_add(size)?));
        let range = range.filter(|range| range.end <= file.len());
        entries.insert(name, range.ok_or("its zip archive lies about a member's place")?);
    }
    Ok(entries)
}
