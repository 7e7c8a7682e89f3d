//! File names with values in them, as NeMo's checkpoints have: `gpt--{val_loss:.2f}-{step}`.

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A value's name and how many digits follow its point; all of them when not said.
    Value(String, Option<usize>),
}

impl FilePattern {
    /// Reads a pattern; a fragment says what is wrong.
    pub fn parse(text: &str) -> Result<FilePattern, String> {
        let no_path = || "it must name a folder, not a path".to_owned();
        if text.is_empty() || text.starts_with('.') {
            return Err(no_path());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (value, after) = after.split_once('}').ok_or("a `{` has no `}`".to_owned())?;
            if is_path(before) {
                return Err(no_path());
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(value_part(value)?);
            rest = after;
        }
        if is_path(rest) {
            return Err(no_path());
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(FilePattern(parts))
    }

    /// Names of the values.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(name, _) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The name: each value stands as `name=value`, as PyTorch Lightning writes it, with `_` for the
    /// `/` of a metric's name.
    pub fn format(&self, value: impl Fn(&str) -> f64) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(name, Some(digits)) => {
                format!("{}={:.digits$}", name.replace('/', "_"), value(name))
            }
            Part::Value(name, None) => format!("{}={}", name.replace('/', "_"), value(name)),
        };
        self.0.iter().map(part).collect()
    }
}

fn is_path(text: &str) -> bool {
    text.contains(['/', '\\', '\0'])
}

/// `val_loss:.2f`, `step`, `step:d`.
fn value_part(text: &str) -> Result<Part, String> {
    let (name, format) = text.split_once(':').unwrap_or((text, ""));
    let digits = match format {
        "" => None,
        "d" => Some(0),
        other => {
            let digits = other.strip_prefix('.').and_then(|rest| rest.strip_suffix('f'));
            let digits = digits.and_then(|digits| digits.parse::<usize>().ok());
            let known = digits.filter(|digits| *digits <= 20);
            Some(known.ok_or(format!("`{other}` is no format such as `.2f`"))?)
        }
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/".contains(&byte);
    let plain = !name.is_empty() && name.bytes().all(plain);
    if plain {
        Ok(Part::Value(name.to_owned(), digits))
    } else {
        Err(format!("`{{{text}}}` is no value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_with_their_names() {
        let check = |pattern: &str, expected: &str| {
            let pattern = FilePattern::parse(pattern).unwrap();
            let value = |name: &str| if name == "step" { 100.0 } else { 2.306 };
            assert_eq!(pattern.format(value), expected);
        };
        check("gpt--{val_loss:.2f}-{step}", "gpt--val_loss=2.31-step=100");
        check("best", "best");
        check("{step:d}{val_loss}", "step=100val_loss=2.306");
        check("{val_metrics/avg_bleu:.1f}", "val_metrics_avg_bleu=2.3");
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        let check = |pattern: &str, expected: &str| {
            let error = FilePattern::parse(pattern).unwrap_err();
            assert!(error.contains(expected), "{pattern}: {error}");
        };
        check("../{step}", "not a path");
        check("", "not a path");
        check("a{step", "has no `}`");
        check("{step:x}", "`x` is no format");
        check("{}", "is no value");
        check("{step:.99f}", "is no format");
    }
}
