//! Reads recipe files from the disk; nothing else of the recipe room does.

use super::place::{Place, SourceFile};
use super::problem::Problem;
use super::tree::{Data, Node, key_text};
use super::yaml;
use crate::base::suggest;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest file read as a recipe, in bytes.
pub const MAX_BYTES: u64 = 4 << 20;

/// A recipe file as read: its text and its tree with places.
#[derive(Clone, Debug)]
pub struct Source {
    /// The text.
    pub file: Arc<SourceFile>,
    pub(crate) tree: Node,
}

/// Reads one YAML file; files it extends are left alone.
pub fn load(path: &Path) -> Result<Source, Vec<Problem>> {
    let file = read(path).map_err(|problem| vec![*problem])?;
    parse(&file)
}

/// The entries of a YAML file that is no recipe, in order, without places; keys are texts.
pub fn entries(path: &Path) -> Result<Vec<(String, serde_json::Value)>, Vec<Problem>> {
    let tree = load(path)?.tree;
    let Data::Map(map) = &tree.data else { return Ok(Vec::new()) };
    let value = |node: &Node| serde_json::to_value(node.to_value()).unwrap_or_default();
    Ok(map.iter().map(|(key, node)| (key_text(key), value(node))).collect())
}

/// Reads a text as YAML.
pub fn parse(file: &Arc<SourceFile>) -> Result<Source, Vec<Problem>> {
    let tree = yaml::parse(file)?;
    Ok(Source { file: Arc::clone(file), tree })
}

/// A path by which the same file is known however it is spelled.
pub(crate) fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// The recipe in the folder of `path` whose name is most like its own; `open` are not meant.
pub(crate) fn nearest(path: &Path, open: &[PathBuf]) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = folder.unwrap_or(Path::new(".")).read_dir().ok()?.filter_map(Result::ok);
    let others = entries.filter(|entry| !open.contains(&identity(&entry.path())));
    let names = others.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_recipe = |name: &String| [".yaml", ".yml", ".j2"].iter().any(|end| name.ends_with(end));
    let mut names: Vec<String> = names.filter(is_recipe).collect();
    names.sort();
    let wanted = path.file_name()?.to_string_lossy();
    suggest::nearest(&wanted, names.iter().map(String::as_str)).map(str::to_owned)
}

/// Reads a file that must be UTF-8 and of a sensible size.
pub(crate) fn read(path: &Path) -> Result<Arc<SourceFile>, Box<Problem>> {
    let name = path.display().to_string();
    let bytes = bytes(path).map_err(|error| {
        let message = format!("cannot read {name}: {error}");
        Box::new(Problem::error("recipe::unreadable", message))
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("{name} is larger than {} MiB", MAX_BYTES >> 20);
        let help = "a recipe holds settings; put rows and other data into files that it names";
        return Err(Box::new(Problem::error("recipe::too_large", message).help(help)));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::new(SourceFile { name, text })),
        Err(error) => Err(Box::new(not_utf8(name, &error))),
    }
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn not_utf8(name: String, error: &std::string::FromUtf8Error) -> Problem {
    let at = error.utf8_error().valid_up_to();
    let message = format!("{name} is not UTF-8: byte {at} starts no character");
    // Up to the bad byte the lossy text is the file's own, so the offset holds.
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let end = at + char::REPLACEMENT_CHARACTER.len_utf8();
    let place = Place { file: Arc::new(SourceFile { name, text }), span: at..end };
    Problem::error("recipe::not_utf8", message)
        .at(Some(&place), "not UTF-8")
        .help("save the file as UTF-8")
}
