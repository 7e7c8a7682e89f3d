//! Dotted paths to values in a recipe, such as `model.optim.betas.0`.

use std::fmt;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A key of a mapping.
    Key(String),
    /// An item of a list.
    Index(usize),
}

/// Steps from the root to a value; empty for the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// The path one key further down.
    #[must_use]
    pub fn key(&self, key: &str) -> Path {
        self.push(Step::Key(key.to_owned()))
    }

    /// The path one list item further down.
    #[must_use]
    pub fn index(&self, index: usize) -> Path {
        self.push(Step::Index(index))
    }

    /// The path without its last step; none for the root.
    pub fn parent(&self) -> Option<Path> {
        let (_, parent) = self.0.split_last()?;
        Some(Path(parent.to_vec()))
    }

    fn push(&self, step: Step) -> Path {
        let mut steps = self.0.clone();
        steps.push(step);
        Path(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str(".")?;
            }
            match step {
                Step::Key(key) => formatter.write_str(key)?,
                Step::Index(at) => write!(formatter, "{at}")?,
            }
        }
        Ok(())
    }
}
