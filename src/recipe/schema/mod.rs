//! The JSON Schemas of a recipe (draft 2020-12), made from the types in `spec::recipe`.
//!
//! The *strict* one describes a resolved recipe; [`errors`] checks against it. The *authoring* one is
//! for editors: wherever a value may stand, an interpolation or a template may stand too.

pub(super) mod errors;
mod foreign;

use crate::spec::recipe::Recipe;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Where an editor finds the committed schema, for `$id`.
const TITLE: &str = "sft-run recipe";

/// Schema of a resolved recipe.
pub fn strict() -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Recipe>();
    let mut schema = Value::from(schema);
    let choices = take_choices(&mut schema);
    settle(&mut schema, &choices);
    schema["title"] = TITLE.into();
    schema["description"] =
        "NeMo's sections with NeMo's names, and `stages`, `vars`, `extends` and a few more.".into();
    schema
}

/// Schema of a recipe as people write it.
pub fn authoring() -> Value {
    let mut schema = strict();
    loosen(&mut schema);
    schema["title"] = format!("{TITLE}, as written").into();
    schema
}

/// The text of a schema as it is committed.
pub fn text(schema: &Value) -> String {
    // The alternate form of `Value` is indented JSON with the keys of each object in order.
    format!("{schema:#}\n")
}

/// Definitions that are a choice between constants, as plain `enum`s; they are put in place, so that
/// an error names the values.
fn take_choices(schema: &mut Value) -> Map<String, Value> {
    let Some(definitions) = schema.get_mut("$defs").and_then(Value::as_object_mut) else {
        return Map::new();
    };
    let choices: Map<_, _> = definitions
        .iter()
        .filter_map(|(name, definition)| Some((name.clone(), choice(definition)?)))
        .collect();
    definitions.retain(|name, _| !choices.contains_key(name));
    choices
}

/// `oneOf` of constants, or an `enum`, as one `enum` with a description of each value.
fn choice(definition: &Value) -> Option<Value> {
    if let Some(values) = definition.get("enum") {
        return Some(json!({"type": "string", "enum": values}));
    }
    let (mut values, mut words) = (Vec::new(), Vec::new());
    for variant in definition.get("oneOf")?.as_array()? {
        let word = variant.get("description").cloned().unwrap_or_default();
        match (variant.get("const"), variant.get("enum").and_then(Value::as_array)) {
            (Some(value), _) => {
                values.push(value.clone());
                words.push(word);
            }
            (None, Some(several)) => {
                words.extend(several.iter().map(|_| word.clone()));
                values.extend(several.iter().cloned());
            }
            (None, None) => return None,
        }
    }
    Some(json!({"type": "string", "enum": values, "enumDescriptions": words}))
}

/// Puts choices in place of their references, and folds `anyOf [x, null]` of a choice into one.
fn settle(schema: &mut Value, choices: &Map<String, Value>) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| settle(item, choices)),
        Value::Object(object) => {
            object.values_mut().for_each(|value| settle(value, choices));
            if let Some(choice) = referred(object, choices) {
                object.remove("$ref");
                object.extend(choice);
            }
            fold_null(object);
            // Formats such as `uint64` say nothing to a reader of YAML.
            object.remove("format");
        }
        _ => {}
    }
}

fn referred(
    object: &Map<String, Value>,
    choices: &Map<String, Value>,
) -> Option<Map<String, Value>> {
    let name = object.get("$ref")?.as_str()?.rsplit('/').next()?;
    choices.get(name)?.as_object().cloned()
}

fn fold_null(object: &mut Map<String, Value>) {
    let Some([value, null]) = object.get("anyOf").and_then(Value::as_array).map(Vec::as_slice)
    else {
        return;
    };
    if null.get("type") != Some(&json!("null")) || value.get("$ref").is_some() {
        return;
    }
    let Some(mut value) = value.as_object().cloned() else { return };
    match value.get_mut("type") {
        Some(Value::String(kind)) => value["type"] = json!([kind.clone(), "null"]),
        Some(Value::Array(kinds)) => kinds.push("null".into()),
        _ => {}
    }
    if let Some(values) = value.get_mut("enum").and_then(Value::as_array_mut) {
        values.push(Value::Null);
    }
    if let Some(words) = value.get_mut("enumDescriptions").and_then(Value::as_array_mut) {
        words.push("Not set.".into());
    }
    object.remove("anyOf");
    for (key, part) in value {
        // The setting's own description says more than the type's.
        object.entry(key).or_insert(part);
    }
}

/// Keywords whose values are schemas of values in a recipe.
const PLACES: [&str; 3] = ["properties", "prefixItems", "$defs"];

/// Allows an interpolation, a template or `???` wherever a value stands.
fn loosen(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    // What is missing may come from a file that is extended, or from the command line.
    object.remove("required");
    object.remove("minProperties");
    for place in PLACES {
        let wrapped = place != "$defs";
        match object.get_mut(place) {
            Some(Value::Object(schemas)) => {
                for inner in schemas.values_mut() {
                    loosen_at(inner, wrapped);
                }
            }
            Some(Value::Array(schemas)) => {
                for inner in schemas.iter_mut() {
                    loosen_at(inner, wrapped);
                }
            }
            _ => {}
        }
    }
    for place in ["items", "additionalProperties"] {
        object.entry(place).and_modify(|inner| loosen_at(inner, true));
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.iter_mut().for_each(loosen);
    }
}

fn loosen_at(schema: &mut Value, wrapped: bool) {
    loosen(schema);
    if !wrapped || !schema.is_object() || takes_any_text(schema) {
        return;
    }
    let description = schema.as_object_mut().and_then(|object| object.remove("description"));
    let mut either = json!({"anyOf": [
        schema.take(),
        {"type": "string", "pattern": r"\$\{|^\?\?\?$", "description": "An interpolation or a template."}
    ]});
    if let Some(description) = description {
        either["description"] = description;
    }
    *schema = either;
}

fn takes_any_text(schema: &Value) -> bool {
    let text = match schema.get("type") {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        _ => false,
    };
    text && schema.get("enum").is_none()
}
