//! A conversation with a checkpoint: turns through the tokenizer's chat template.

use super::generate::{Error, Speaker};
use crate::data::template::chat::ChatTemplate;
use crate::engine::generation::{Listener, Session};
use crate::spec::generation::Generation;
use serde::Serialize;
use serde_json::json;
use std::sync::atomic::AtomicBool;

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    role: &'static str,
    content: String,
}

impl Message {
    /// What the person says.
    pub fn user(content: &str) -> Message {
        Message { role: "user", content: content.to_owned() }
    }

    /// What the model says.
    pub fn assistant(content: &str) -> Message {
        Message { role: "assistant", content: content.to_owned() }
    }
}

impl Speaker {
    /// The chat template that came with the tokenizer.
    pub fn chat_template(&self) -> Result<ChatTemplate, Error> {
        let source = self.tokenizer.chat_template()?.ok_or(Error::NoChatTemplate)?;
        let parsed = ChatTemplate::parse(&source, &self.tokenizer.special_texts(), None);
        parsed.map_err(|error| Error::ChatTemplate(error.to_string()))
    }

    /// The model's next turn, streamed to `listener`.
    #[expect(clippy::too_many_arguments, reason = "all that an answer depends on")]
    pub fn answer(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        settings: &Generation,
        stop: &AtomicBool,
        listener: &mut Listener<'_>,
    ) -> Result<String, super::Error> {
        let row = json!({ "messages": messages }).to_string();
        let prompt = template.prompt(&row, "messages").map_err(Error::ChatTemplate)?;
        let encode = |_: Session<'_>| Ok(vec![self.tokenizer.encode_marked(&prompt, true)?]);
        let generated = self.decode(&encode, settings, stop, listener)?;
        Ok(generated.into_iter().next().map(|one| one.text).unwrap_or_default())
    }
}
