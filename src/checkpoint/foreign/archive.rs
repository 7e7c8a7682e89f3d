//! `.nemo` archives: a tar file, plain or gzipped, whose members are read where they lie.
//!
//! Nothing is unpacked by name. A gzipped archive is inflated once into a nameless temporary file,
//! up to a limit that its own size sets.

use super::stored::Piece;
use crate::base::mapped_file::MappedFile;
use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Component, Path};
use tar::{Archive, EntryType};

/// Members by path, without a leading `./`.
pub type Members = BTreeMap<String, Piece>;

/// A gzipped archive may grow by this factor; weights hardly shrink at all.
const LARGEST_GROWTH: u64 = 32;
/// What every gzipped archive may grow to.
const SMALLEST_LIMIT: u64 = 16 << 20;

/// The members of the archive at `path`.
pub fn members(path: &Path) -> Result<Members, String> {
    let cannot = |error: io::Error| format!("it cannot be read: {error}");
    let file = File::open(path).map_err(cannot)?;
    let map = MappedFile::whole(&file).map_err(cannot)?;
    let map = if map.starts_with(&[0x1f, 0x8b]) { inflated(&map)? } else { map };
    listed(&Piece::whole(map))
}

fn inflated(zipped: &MappedFile) -> Result<MappedFile, String> {
    let limit = (zipped.len() as u64).saturating_mul(LARGEST_GROWTH).max(SMALLEST_LIMIT);
    let cannot = |error: io::Error| format!("it cannot be inflated: {error}");
    let mut target = tempfile::tempfile().map_err(cannot)?;
    let mut source = BufReader::new(MultiGzDecoder::new(Cursor::new(&zipped[..]))).take(limit + 1);
    let size = io::copy(&mut source, &mut target).map_err(cannot)?;
    if size > limit {
        return Err(format!(
            "it inflates to more than {LARGEST_GROWTH} times its size, which weights never do: \
             unpack it yourself if you trust it, and give the folder"
        ));
    }
    MappedFile::whole(&target).map_err(cannot)
}

/// Members of a tar file; links and paths that lead outside are refused.
pub fn listed(file: &Piece) -> Result<Members, String> {
    let damaged = |error: io::Error| format!("its tar archive is damaged: {error}");
    let mut archive = Archive::new(Cursor::new(&file[..]));
    let mut members = Members::new();
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let name = plain(&path)?;
        match entry.header().entry_type() {
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Symlink | EntryType::Link => {
                return Err(format!("member `{name}` of its tar archive is a link"));
            }
            _ => return Err(format!("member `{name}` of its tar archive is no file")),
        }
        let place = entry.raw_file_position();
        let range = usize::try_from(place).ok().zip(usize::try_from(entry.size()).ok());
        let piece = range
            .and_then(|(start, size)| Some(start..start.checked_add(size)?))
            .and_then(|range| file.part(range))
            .ok_or_else(|| format!("member `{name}` of its tar archive is cut short"))?;
        if members.insert(name.clone(), piece).is_some() {
            return Err(format!("its tar archive has `{name}` twice"));
        }
    }
    Ok(members)
}

/// A relative path without `..`, parts joined by `/`.
fn plain(path: &Path) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            _ => {
                let path = path.display();
                return Err(format!("member `{path}` of its tar archive leads outside of it"));
            }
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;
    use tar::{Builder, Header};

    fn tar(members: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, data) in members {
            let mut header = Header::new_gnu();
            // Set by hand: the crate refuses to write what is to be refused.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Members, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.nemo");
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        members(&path)
    }

    #[test]
    fn members_of_plain_and_gzipped_archives() {
        let plain = tar(&[
            ("./", EntryType::Directory, b""),
            ("./model_config.yaml", EntryType::Regular, b"a: 1"),
            ("mp_rank_00/model_weights.ckpt", EntryType::Regular, b"weights"),
        ]);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&plain).unwrap();
        for bytes in [plain, encoder.finish().unwrap()] {
            let members = read(&bytes).unwrap();
            let names: Vec<&str> = members.keys().map(String::as_str).collect();
            assert_eq!(names, ["model_config.yaml", "mp_rank_00/model_weights.ckpt"]);
            assert_eq!(&members["model_config.yaml"][..], b"a: 1");
        }
    }

    #[test]
    fn what_leads_outside_is_refused() {
        let refused = |members, expected: &str| {
            let error = read(&tar(members)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        refused(&[("../evil", EntryType::Regular, b"x")], "leads outside");
        refused(&[("/etc/evil", EntryType::Regular, b"x")], "leads outside");
        refused(&[("a", EntryType::Symlink, b"")], "is a link");
        refused(&[("a", EntryType::Link, b"")], "is a link");
        refused(&[("a", EntryType::Char, b"")], "no file");
        let twice: &[(&str, EntryType, &[u8])] =
            &[("a", EntryType::Regular, b"1"), ("./a", EntryType::Regular, b"2")];
        refused(twice, "twice");
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let zeros = vec![0; 1 << 20];
        for _ in 0..64 {
            encoder.write_all(&zeros).unwrap();
        }
        let error = read(&encoder.finish().unwrap()).unwrap_err();
        assert!(error.contains("inflates to more than"), "{error}");
    }
}
