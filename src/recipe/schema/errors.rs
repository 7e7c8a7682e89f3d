//! A resolved recipe against the strict schema: every mismatch as a problem with its place.

use super::foreign;
use crate::base::suggest;
use crate::recipe::path::{Path, Step};
use crate::recipe::place::{Place, SourceMap};
use crate::recipe::problem::Problem;
use crate::spec::recipe::Stage;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use jsonschema::{JsonType, ValidationError, Validator};
use serde_json::Value;

/// The strict schema as committed.
const STRICT: &str = include_str!("../../../schemas/recipe.strict.json");

/// Checks values against the committed strict schema.
pub(in crate::recipe) fn check(values: &Value, marks: &SourceMap) -> Vec<Problem> {
    let compiled = serde_json::from_str(STRICT).map_err(|error| error.to_string()).and_then(
        |schema: Value| match jsonschema::validator_for(&schema) {
            Ok(validator) => Ok((schema, validator)),
            Err(error) => Err(error.to_string()),
        },
    );
    match compiled {
        Ok((schema, validator)) => Checker { schema: &schema, marks }.run(&validator, values),
        Err(error) => {
            let message = format!("the schema that this program was built with is broken: {error}");
            vec![Problem::error("recipe::broken_schema", message)]
        }
    }
}

struct Checker<'a> {
    schema: &'a Value,
    marks: &'a SourceMap,
}

impl Checker<'_> {
    fn run(&self, validator: &Validator, values: &Value) -> Vec<Problem> {
        validator.iter_errors(values).flat_map(|error| self.problems(&error)).collect()
    }

    fn problems(&self, error: &ValidationError) -> Vec<Problem> {
        let path = path_of(error);
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                if is_stage(&path) {
                    return vec![self.no_kind(&path, unexpected)];
                }
                let known = self.known_keys(error);
                unexpected.iter().map(|key| self.unknown_key(&path, key, &known)).collect()
            }
            ValidationErrorKind::AnyOf { context } => self.alternatives(&path, error, context),
            ValidationErrorKind::Enum { options } => vec![self.no_choice(&path, error, options)],
            // The keys that are no kinds are told already.
            ValidationErrorKind::MaxProperties { .. } if !has_kinds_only(error) => Vec::new(),
            ValidationErrorKind::Type { .. } if is_stage(&path) => vec![self.no_kind(&path, &[])],
            ValidationErrorKind::Type { kind } => vec![self.wrong_type(&path, error, kind)],
            ValidationErrorKind::Required { property } => {
                vec![self.missing(&path, property.as_str().unwrap_or_default())]
            }
            other => vec![self.out_of_bounds(&path, error, other)],
        }
    }

    fn unknown_key(&self, parent: &Path, key: &str, known: &[&str]) -> Problem {
        let path = parent.key(key);
        let meant = suggest::nearest(key, known.iter().copied());
        let elsewhere = self.homes(key);
        let help = match (meant, elsewhere.as_slice()) {
            _ if foreign::name(key).is_some() => {
                format!("NeMo's name is `{}`", foreign::name(key).unwrap_or_default())
            }
            (_, [home]) => format!("`{key}` belongs in {home}"),
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, []) if known.len() <= 12 => {
                format!("known keys here: {}", suggest::listed(known.iter().copied()))
            }
            (None, []) => "`sft-run schema --keys` lists every key".to_owned(),
            (None, homes) => format!("`{key}` is known in {}", homes.join(", ")),
        };
        let section =
            if parent.0.is_empty() { "a recipe".to_owned() } else { format!("`{parent}`") };
        Problem::error("recipe::unknown_key", format!("`{key}` is no key of {section}"))
            .at(self.key_place(&path), "unknown key")
            .help(help)
            .about(path)
    }

    /// A stage whose settings stand where its kind belongs, or whose kind is mistyped.
    fn no_kind(&self, path: &Path, found: &[String]) -> Problem {
        let name = Path(path.0.last().cloned().into_iter().collect()).to_string();
        let first = found.first().map(String::as_str);
        let meant = first.and_then(|first| suggest::nearest(first, Stage::KINDS));
        let kind = Stage::KINDS.into_iter().find(|kind| *kind == name).unwrap_or("KIND");
        let help = match (meant, first) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, Some(first)) => format!("write `{name}: {{{kind}: {{{first}: …}}}}`;"),
            (None, None) => format!("write `{name}: {{{kind}: {{}}}}`;"),
        };
        let message = match first {
            Some(first) => format!("`{first}` is no kind of stage"),
            None => format!("stage `{name}` does not say its kind"),
        };
        let kinds = suggest::listed(Stage::KINDS);
        let at = first.map_or_else(|| path.clone(), |first| path.key(first));
        Problem::error("recipe::stage_kind", message)
            .at(self.key_place(&at), "the kind belongs here")
            .help(format!("{help} kinds: {kinds}"))
            .about(at)
    }

    /// Sections other than the stages that have such a key.
    fn homes(&self, key: &str) -> Vec<String> {
        let sections = [
            ("", "the top level"),
            ("/$defs/Trainer", "`trainer`"),
            ("/$defs/ExpManager", "`exp_manager`"),
            ("/$defs/CheckpointCallback", "`exp_manager.checkpoint_callback_params`"),
            ("/$defs/Model", "`model`"),
            ("/$defs/Data", "`model.data`"),
            ("/$defs/Tokenizer", "`model.tokenizer`"),
            ("/$defs/Optim", "`model.optim`"),
            ("/$defs/Sched", "`model.optim.sched`"),
        ];
        let has = |pointer: &str| {
            let section = self.schema.pointer(pointer).and_then(|node| node.get("properties"));
            section.and_then(|keys| keys.get(key)).is_some()
        };
        let found = sections.into_iter().filter(|(pointer, _)| has(pointer));
        found.map(|(_, name)| name.to_owned()).collect()
    }

    fn known_keys(&self, error: &ValidationError) -> Vec<&str> {
        let keys = self.node(error).and_then(|node| node.get("properties"));
        keys.and_then(Value::as_object)
            .map(|keys| keys.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }

    /// The schema that holds the keyword that failed.
    fn node(&self, error: &ValidationError) -> Option<&Value> {
        let pointer = error.schema_path().as_str();
        self.schema.pointer(pointer.rsplit_once('/')?.0)
    }

    /// What the setting is, in the schema's words.
    fn description(&self, error: &ValidationError) -> Option<String> {
        let text = self.node(error)?.get("description")?.as_str()?;
        Some(format!("what it is: {text}"))
    }

    /// Of several forms, the one whose kind of value fits is meant.
    fn alternatives(
        &self,
        path: &Path,
        error: &ValidationError,
        context: &[Vec<ValidationError>],
    ) -> Vec<Problem> {
        let misses = |errors: &[ValidationError]| {
            errors.iter().any(|inner| {
                matches!(inner.kind(), ValidationErrorKind::Type { .. })
                    && inner.instance_path() == error.instance_path()
            })
        };
        if let Some(meant) = context.iter().find(|errors| !misses(errors)) {
            return meant.iter().flat_map(|inner| self.problems(inner)).collect();
        }
        let kinds = context.iter().flatten().filter_map(|inner| match inner.kind() {
            ValidationErrorKind::Type { kind } => Some(expected(kind)),
            _ => None,
        });
        let kinds: Vec<String> = kinds.filter(|kind| kind != "null").collect();
        vec![self.mismatch(path, &kinds.join(" or "), error)]
    }

    fn wrong_type(&self, path: &Path, error: &ValidationError, kind: &TypeKind) -> Problem {
        self.mismatch(path, &expected(kind), error)
    }

    fn mismatch(&self, path: &Path, wanted: &str, error: &ValidationError) -> Problem {
        let found: &Value = error.instance();
        Problem::error(
            "recipe::wrong_type",
            format!("`{path}` must be {wanted}, not {}", shown(found)),
        )
        .at(self.value_place(path), format!("expected {wanted}"))
        .help_if(self.description(error))
        .help_if(advice(wanted, found))
        .about(path.clone())
    }

    fn no_choice(&self, path: &Path, error: &ValidationError, options: &Value) -> Problem {
        let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut names: Vec<String> = Vec::new();
        for option in options.iter().filter(|option| !option.is_null()) {
            let name = option.as_str().map_or_else(|| option.to_string(), str::to_owned);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let found =
            error.instance().as_str().map_or_else(|| error.instance().to_string(), str::to_owned);
        let help = suggest::choices(&found, "known values:", names.iter().map(String::as_str));
        Problem::error("recipe::unknown_value", format!("`{path}` cannot be `{found}`"))
            .at(self.value_place(path), "unknown value")
            .help(help)
            .about(path.clone())
    }

    fn missing(&self, parent: &Path, key: &str) -> Problem {
        let path = parent.key(key);
        Problem::error("recipe::missing_key", format!("`{path}` is missing"))
            .at(self.key_place(parent), format!("has no `{key}`"))
            .help(format!("add `{key}: …` here, or set {path}=VALUE on the command line"))
            .about(path)
    }

    fn out_of_bounds(
        &self,
        path: &Path,
        error: &ValidationError,
        kind: &ValidationErrorKind,
    ) -> Problem {
        let found = shown(error.instance());
        let message = match kind {
            ValidationErrorKind::Minimum { limit } => {
                format!("`{path}` must be at least {limit}, not {found}")
            }
            ValidationErrorKind::Maximum { limit } => {
                format!("`{path}` must be at most {limit}, not {found}")
            }
            ValidationErrorKind::MinItems { limit } | ValidationErrorKind::MaxItems { limit } => {
                let items = error.instance().as_array().map_or(0, Vec::len);
                format!("`{path}` takes {limit} values, not {items}")
            }
            ValidationErrorKind::MinProperties { .. } => format!("`{path}` has no kind"),
            ValidationErrorKind::MaxProperties { .. } => format!("`{path}` has more than one kind"),
            _ => format!("`{path}`: {error}"),
        };
        let stage = matches!(
            kind,
            ValidationErrorKind::MinProperties { .. } | ValidationErrorKind::MaxProperties { .. }
        );
        let place = if stage { self.key_place(path) } else { self.value_place(path) };
        let label = if stage { "this stage" } else { "out of bounds" };
        let help = stage.then(|| {
            "a stage is `NAME: {KIND: {…}}` with one of tokenize, shard, load, train, evaluate, generate"
                .to_owned()
        });
        Problem::error("recipe::out_of_bounds", message)
            .at(place, label)
            .help_if(self.description(error))
            .help_if(help)
            .about(path.clone())
    }

    fn key_place(&self, path: &Path) -> Option<&Place> {
        let marks = self.marks.get(path)?;
        marks.key.as_ref().or_else(|| marks.value.place())
    }

    fn value_place(&self, path: &Path) -> Option<&Place> {
        self.marks.get(path)?.value.place()
    }
}

fn has_kinds_only(error: &ValidationError) -> bool {
    let keys = error.instance().as_object();
    keys.is_some_and(|keys| keys.keys().all(|key| Stage::KINDS.contains(&key.as_str())))
}

/// `stages.NAME`
fn is_stage(path: &Path) -> bool {
    matches!(path.0.as_slice(), [Step::Key(section), Step::Key(_)] if section == "stages")
}

fn path_of(error: &ValidationError) -> Path {
    let step = |segment: LocationSegment| match segment {
        LocationSegment::Property(key) => Step::Key(key.into_owned()),
        LocationSegment::Index(index) => Step::Index(index),
    };
    Path(error.instance_path().iter().map(step).collect())
}

fn expected(kind: &TypeKind) -> String {
    let kinds: Vec<JsonType> = match kind {
        TypeKind::Single(kind) => vec![*kind],
        TypeKind::Multiple(kinds) => kinds.iter().collect(),
    };
    let only_null = kinds == [JsonType::Null];
    let words = kinds.into_iter().filter(|kind| only_null || *kind != JsonType::Null).map(word);
    words.collect::<Vec<_>>().join(" or ")
}

fn word(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Number => "a number",
        JsonType::String => "text",
        JsonType::Array => "a list",
        JsonType::Object => "a mapping",
    }
}

/// A value with the word for its kind, shortened.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.chars().count() > 40 => {
            format!("the text `{}…`", text.chars().take(40).collect::<String>())
        }
        Value::String(text) => format!("the text `{text}`"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// What people mean by a value of the wrong kind.
fn advice(wanted: &str, found: &Value) -> Option<String> {
    match found {
        Value::String(text) if text.parse::<f64>().is_ok() => {
            Some(format!("write it without quotes: {text}"))
        }
        Value::String(text) if wanted == "true or false" => {
            let meant = matches!(text.to_lowercase().as_str(), "true" | "yes" | "on" | "y" | "1");
            Some(format!("write {meant} without quotes"))
        }
        Value::Array(items) if items.len() == 1 => Some(format!("write {}", items[0])),
        Value::String(text) if wanted == "a list" => Some(format!("write [{text}]")),
        Value::Number(number) if wanted == "text" => {
            Some(format!("put it in quotes: \"{number}\""))
        }
        Value::Number(number) if wanted == "true or false" => {
            Some(format!("write {}", number.as_f64() != Some(0.0)))
        }
        Value::Null if wanted == "a mapping" => {
            Some("write {} for a section without settings".to_owned())
        }
        _ => None,
    }
}
