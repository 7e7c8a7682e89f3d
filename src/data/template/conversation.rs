//! A row's conversation: turns of `role` and `content`, or of `from` and `value`.

use super::chat::is_marked;
use minijinja::Value;
use std::collections::BTreeMap;

/// What a chat template sees of a row. Keys keep the order of the file.
pub(super) struct Row {
    pub(super) turns: Vec<Turn>,
    pub(super) tools: Value,
    pub(super) documents: Value,
}

/// One message.
pub(super) struct Turn {
    pub(super) value: Value,
}

impl Row {
    /// Reads the conversation in the field `messages` of a JSON object.
    pub(super) fn parse(row: &str, messages: &str) -> Result<Row, String> {
        if is_marked(row) {
            return Err("it holds U+FDD0 or U+FDD1, which no text may".to_owned());
        }
        let mut fields: BTreeMap<String, Value> = serde_json::from_str(row)
            .map_err(|error| format!("it is not a JSON object: {error}"))?;
        let told = fields.keys().cloned().collect::<Vec<_>>().join(", ");
        let field = fields
            .remove(messages)
            .ok_or_else(|| format!("it has no field `{messages}` (its fields: {told})"))?;
        let items = field.try_iter().ok().filter(|_| field.as_str().is_none());
        let items = items.ok_or_else(|| format!("field `{messages}` is no list of messages"))?;
        // NeMo's chat rows have the system's text beside the conversation.
        let system =
            fields.get("system").filter(|text| text.as_str().is_some_and(|t| !t.is_empty()));
        let mut turns: Vec<Turn> = Vec::new();
        for (at, item) in items.enumerate() {
            let turn = Turn::read(&item).ok_or_else(|| {
                format!(
                    "message {} has neither `role` and `content` nor `from` and `value`",
                    at + 1
                )
            })?;
            turns.push(turn);
        }
        if let Some(text) =
            system.filter(|_| turns.first().is_some_and(|turn| turn.role() != "system"))
        {
            turns.insert(0, Turn::new("system", text.clone()));
        }
        let field = |name: &str| fields.get(name).cloned().unwrap_or(Value::from(()));
        Ok(Row { turns, tools: field("tools"), documents: field("documents") })
    }
}

impl Turn {
    fn new(role: &str, content: Value) -> Turn {
        Turn { value: Value::from_pairs([("role", Value::from(role)), ("content", content)]) }
    }

    fn read(item: &Value) -> Option<Turn> {
        let key = |name: &str| item.get_attr(name).ok().filter(|value| !value.is_undefined());
        if key("role").is_some() {
            return Some(Turn { value: item.clone() });
        }
        let (from, value) = (key("from")?, key("value")?);
        Some(Turn::new(role_of(from.as_str()?), value))
    }

    fn key(&self, name: &str) -> Value {
        self.value.get_attr(name).unwrap_or_default()
    }

    fn role(&self) -> String {
        self.key("role").as_str().unwrap_or_default().to_owned()
    }

    /// Whether the assistant speaks.
    pub(super) fn is_answer(&self) -> bool {
        self.role() == "assistant"
    }

    /// What is said; nothing when that is no text.
    pub(super) fn text(&self) -> String {
        self.key("content").as_str().unwrap_or_default().to_owned()
    }
}

/// The role that a speaker's name in rows of `ShareGPT` and NeMo stands for.
fn role_of(speaker: &str) -> &str {
    match speaker {
        "human" | "Human" | "User" => "user",
        "gpt" | "Assistant" | "chatgpt" | "bot" | "model" => "assistant",
        "System" => "system",
        "function_response" | "observation" => "tool",
        other => other,
    }
}
