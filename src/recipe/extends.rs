//! `extends: other.yaml`: a recipe laid over others; mappings merge, all else replaces.

use super::overrides::merge;
use super::place::{Place, SourceFile};
use super::problem::Problem;
use super::render::{Context, Rendered, is_template, render_file};
use super::source;
use super::tree::{Data, Node};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most files of one recipe.
const MAX_FILES: usize = 32;

/// The files of a recipe as they are read.
pub(crate) struct Loader<'c> {
    context: &'c Context,
    /// Every file, the recipe first; a template is followed by what it came to.
    pub(crate) files: Vec<Arc<SourceFile>>,
    pub(crate) rendered: Vec<Rendered>,
    /// The files that wait for those they extend.
    open: Vec<PathBuf>,
}

impl Loader<'_> {
    pub(crate) fn new(context: &Context) -> Loader<'_> {
        Loader { context, files: Vec::new(), rendered: Vec::new(), open: Vec::new() }
    }

    /// Reads a file and what it extends.
    pub(crate) fn load(
        &mut self,
        path: &Path,
        named: Option<&Place>,
    ) -> Result<Node, Vec<Problem>> {
        let identity = source::identity(path);
        if self.open.contains(&identity) {
            let names: Vec<_> =
                self.open.iter().chain([&identity]).map(|path| name(path)).collect();
            let message = format!("recipes extend each other in a circle: {}", names.join(" → "));
            return Err(vec![
                Problem::error("extends::cycle", message).at(named, "closes the circle"),
            ]);
        }
        if self.files.len() >= MAX_FILES {
            let message = format!("a recipe is made of more than {MAX_FILES} files");
            return Err(vec![
                Problem::error("extends::too_many", message).at(named, "one too many"),
            ]);
        }
        self.open.push(identity);
        let tree = self.load_open(path, named);
        self.open.pop();
        tree
    }

    fn load_open(&mut self, path: &Path, named: Option<&Place>) -> Result<Node, Vec<Problem>> {
        let file =
            source::read(path).map_err(|problem| vec![self.unread(path, named, *problem)])?;
        self.files.push(Arc::clone(&file));
        let mut tree = if is_template(&file.name) {
            let rendered = render_file(&file, self.context).map_err(|problem| vec![*problem])?;
            let text = Arc::clone(&rendered.file);
            self.files.push(Arc::clone(&text));
            self.rendered.push(rendered);
            source::parse(&text)?.tree
        } else {
            source::parse(&file)?.tree
        };
        let extends = match &mut tree.data {
            Data::Map(map) => map.remove("extends"),
            _ => None,
        };
        match extends {
            Some(extends) => self.extend(path, &extends, tree),
            None => Ok(tree),
        }
    }

    /// A file that cannot be read, with the place that names it and what may be meant.
    fn unread(&self, path: &Path, named: Option<&Place>, problem: Problem) -> Problem {
        if named.is_none() || problem.place.is_some() {
            return problem;
        }
        let meant =
            source::nearest(path, &self.open).map(|name| format!("did you mean `{name}`? "));
        let meant = meant.unwrap_or_default();
        let help = format!("{meant}a path in `extends` is relative to the file that it stands in");
        let help = problem.help.clone().unwrap_or(help);
        problem.at(named, "named here").help(help)
    }

    /// Lays a tree over the files that it names, the first one lowest.
    fn extend(&mut self, path: &Path, extends: &Node, tree: Node) -> Result<Node, Vec<Problem>> {
        let names: Vec<&Node> = match &extends.data {
            Data::List(items) => items.iter().collect(),
            _ => vec![extends],
        };
        let mut below: Option<Node> = None;
        for node in names {
            let place = node.origin.place();
            let Some(name) = node.text().filter(|name| !name.contains("${")) else {
                let problem = Problem::error("extends::name", "`extends` takes the path of a file")
                    .at(place, "not a path")
                    .help("a plain path beside this file, or a list of them; it is read before expressions and interpolations");
                return Err(vec![problem]);
            };
            let other = path.parent().unwrap_or(Path::new("")).join(name);
            let loaded = self.load(&other, place)?;
            match &mut below {
                Some(below) => merge(below, loaded),
                None => below = Some(loaded),
            }
        }
        let Some(mut all) = below else { return Ok(tree) };
        merge(&mut all, tree);
        Ok(all)
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
