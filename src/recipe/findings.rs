//! Collects what rules find, each with the places of the settings it speaks of.

use super::path::{Path, Step};
use super::place::{Place, SourceMap};
use super::problem::{Problem, Severity};

/// What has been found so far.
pub(super) struct Findings<'a> {
    marks: &'a SourceMap,
    /// Where settings of the stage at hand stand that come before the recipe's.
    overlay: Option<Path>,
    pub(super) problems: Vec<Problem>,
}

/// The finding made last, to which places and advice can be added.
pub(super) struct Latest<'f, 'a>(&'f mut Findings<'a>);

impl<'a> Findings<'a> {
    pub(super) fn new(marks: &'a SourceMap) -> Findings<'a> {
        Findings { marks, overlay: None, problems: Vec::new() }
    }

    /// Speaks of the settings of a stage from now on.
    pub(super) fn in_overlay(&mut self, overlay: Option<Path>) {
        self.overlay = overlay;
    }

    /// An error about a setting, with the words for its caret.
    pub(super) fn error(
        &mut self,
        code: &'static str,
        path: impl Into<Path>,
        label: impl Into<String>,
        message: impl Into<String>,
    ) -> Latest<'_, 'a> {
        let path = path.into();
        let place = self.place(&path).cloned();
        let problem = Problem::error(code, message).at(place.as_ref(), label).about(path);
        // Stages that share their settings find the same.
        self.problems.retain(|known| {
            (known.code, &known.message, &known.place)
                != (problem.code, &problem.message, &problem.place)
        });
        self.problems.push(problem);
        Latest(self)
    }

    /// The same for something that can be run, but hardly means what it says.
    pub(super) fn lint(
        &mut self,
        code: &'static str,
        path: impl Into<Path>,
        label: impl Into<String>,
        message: impl Into<String>,
    ) -> Latest<'_, 'a> {
        let latest = self.error(code, path, label, message);
        if let Some(problem) = latest.0.problems.last_mut() {
            problem.severity = Severity::Lint;
        }
        latest
    }

    /// Where a value stands, or the nearest section around it.
    pub(super) fn place(&self, path: &Path) -> Option<&Place> {
        let own = self.overlay.as_ref().map(|overlay| joined(overlay, path));
        let mut around = std::iter::successors(Some(path.clone()), Path::parent);
        own.and_then(|own| self.exact(&own)).or_else(|| around.find_map(|path| self.exact(&path)))
    }

    fn exact(&self, path: &Path) -> Option<&Place> {
        let marks = self.marks.get(path)?;
        let value = marks.value.place()?;
        // A section is pointed at by its key; its value would be all of its lines.
        let lines = value.file.text.get(value.span.clone()).is_some_and(|text| text.contains('\n'));
        if lines { marks.key.as_ref().or(Some(value)) } else { Some(value) }
    }
}

impl Latest<'_, '_> {
    /// One more place, unless nobody wrote that setting.
    pub(super) fn with(self, path: impl Into<Path>, label: impl Into<String>) -> Self {
        let path = path.into();
        let overlay = self.0.overlay.as_ref().map(|overlay| joined(overlay, &path));
        let place = overlay.and_then(|own| self.0.exact(&own)).or_else(|| self.0.exact(&path));
        let place = place.cloned();
        if let Some(problem) = self.0.problems.last_mut() {
            problem.related.extend(place.map(|place| (place, label.into())));
        }
        self
    }

    /// What to do.
    pub(super) fn help(self, help: impl Into<String>) {
        if let Some(problem) = self.0.problems.last_mut() {
            problem.help = Some(help.into());
        }
    }
}

fn joined(front: &Path, back: &Path) -> Path {
    Path(front.0.iter().chain(&back.0).cloned().collect())
}

impl From<&str> for Path {
    /// A path of keys from its dotted form.
    fn from(dotted: &str) -> Path {
        Path(dotted.split('.').map(|key| Step::Key(key.to_owned())).collect())
    }
}

/// A number as people write it: small ones with an exponent.
pub(super) fn number(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e15) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

/// `1 rank`, `2 ranks`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("{number} {noun}") } else { format!("{number} {noun}s") }
}
