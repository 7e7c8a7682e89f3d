//! A conversation with a checkpoint: turns through the chat template that goes along with it.

use super::generate::{Error, Speaker};
use crate::data::template::chat::ChatTemplate;
use crate::engine::generation::{Listener, Session};
use crate::spec::generation::Generation;
use serde::Serialize;
use serde_json::json;
use std::sync::atomic::AtomicBool;

/// What was said so far, and how the model goes on.
#[derive(Debug)]
pub struct Conversation<'a> {
    speaker: &'a Speaker,
    template: ChatTemplate,
    settings: Generation,
    messages: Vec<Message>,
}

/// One turn, as chat templates read it.
#[derive(Clone, Debug, Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

impl Speaker {
    /// Begins a conversation through the chat template that the model learned with, or that came
    /// with its tokenizer. Answers end where the template ends a turn, too.
    pub fn conversation(&self, settings: &Generation) -> Result<Conversation<'_>, Error> {
        let source = self.tokenizer.chat_template()?.ok_or(Error::NoChatTemplate)?;
        let (special, date) = (self.tokenizer.special_texts(), self.tokenizer.chat_date());
        let template = ChatTemplate::parse(&source, &special, date);
        let template = template.map_err(|error| Error::ChatTemplate(error.to_string()))?;
        let mut settings = settings.clone();
        settings.end_strings.extend(template.turn_end());
        Ok(Conversation { speaker: self, template, settings, messages: Vec::new() })
    }
}

impl Conversation<'_> {
    /// The model's answer to what a person says, streamed to `listener`.
    pub fn answer(
        &mut self,
        said: &str,
        stop: &AtomicBool,
        listener: &mut Listener<'_>,
    ) -> Result<String, super::Error> {
        self.messages.push(Message { role: "user", content: said.to_owned() });
        let row = json!({ "messages": self.messages }).to_string();
        let prompt = self.template.prompt(&row, "messages").map_err(Error::ChatTemplate)?;
        let add_bos = self.settings.add_bos;
        let encode = |session: Session<'_>| Ok(vec![session.encode_marked(&prompt, add_bos)?]);
        let generated = self.speaker.decode(&encode, &self.settings, stop, listener)?;
        let content: String = generated.into_iter().map(|one| one.text).collect();
        self.messages.push(Message { role: "assistant", content: content.clone() });
        Ok(content)
    }
}
