//! Chat templates: how an instruction-tuned model wants to be spoken to.
//!
//! The hub keeps them as Jinja texts in `tokenizer_config.json` (`chat_template`, one or several by name) or in
//! `chat_template.jinja`; they are rendered as transformers' `apply_chat_template` renders them.

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};

/// A template that cannot be read or rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: the chat template {reason}; set keywords.chat = \"never\" to ask without it",
    .path.display()
)]
pub struct ChatTemplateError {
    /// Where the template stands.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// Something said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `user`, `assistant` or `system`.
    pub role: String,
    /// The words.
    pub content: String,
}

impl Message {
    /// What the user says.
    pub fn user(content: &str) -> Self {
        Self {
            role: "user".into(),
            content: content.into(),
        }
    }

    fn value(&self) -> Value {
        let pairs = [("role", &self.role), ("content", &self.content)];
        Value::from_pairs(pairs.map(|(key, text)| (key, Value::from(text.as_str()))))
    }
}

/// A chat template with the special tokens that it may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    path: PathBuf,
    source: String,
    tokens: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// A template as the file at `path` has it; `tokens` are pairs of a role such as `bos_token` and its spelling.
    pub fn new(path: &Path, source: &str, tokens: Vec<(&'static str, String)>) -> Self {
        Self {
            path: path.into(),
            source: source.into(),
            tokens,
        }
    }

    /// The conversation as one text, special tokens included; `add_generation_prompt` ends it where the model is to
    /// answer.
    ///
    /// # Errors
    /// When the template is no Jinja, or refuses the conversation.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ChatTemplateError> {
        let refused = |error: Error| ChatTemplateError {
            path: self.path.clone(),
            reason: format!("cannot be rendered: {error}"),
        };
        let mut environment = Environment::new();
        // transformers strips the line of a block tag, and knows Python's methods.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(refused)?;
        environment.set_syntax(syntax);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |reason: String| -> Result<Value, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, reason))
            },
        );
        let mut context = vec![
            ("messages", messages.iter().map(Message::value).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        let tokens = self.tokens.iter();
        context.extend(tokens.map(|(role, token)| (*role, Value::from(token.as_str()))));
        let context = Value::from_pairs(context);
        environment
            .render_str(&self.source, context)
            .map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        let tokens = vec![("bos_token", "<s>".into()), ("eos_token", "</s>".into())];
        ChatTemplate::new(Path::new("tokenizer_config.json"), source, tokens)
    }

    #[test]
    fn blocks_leave_no_lines_and_methods_are_pythons() {
        let source = "{{ bos_token }}\n{% for message in messages %}\n  {% if message['role'] == 'user' %}\n[INST] {{ message.content.strip() }} [/INST]\n  {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}>{% endif %}";
        let found = template(source)
            .render(&[Message::user("  hello ")], true)
            .unwrap();
        assert_eq!(found, "<s>\n[INST] hello [/INST]\n>");
    }

    #[test]
    fn a_refusal_is_said() {
        let source = "{% if messages|length != 2 %}{{ raise_exception('two, please') }}{% endif %}";
        let error = template(source)
            .render(&[Message::user("x")], true)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("two, please") && error.contains("tokenizer_config.json"),
            "{error}"
        );
        let broken = template("{% for %}")
            .render(&[], false)
            .unwrap_err()
            .to_string();
        assert!(broken.contains("cannot be rendered"), "{broken}");
    }
}
