//! Keywords of items and users by the language model (method, equation 6).
//!
//! An item's keywords depend on its caption and text alone: the answers are plain strings, computed once
//! per item and kept by whoever asks. Pooling over a history is [`crate::text::keyword::pool`].

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use crate::networks::llama::LlamaForCausalLm;
use crate::text::keyword::{PoolConfig, parse, pool};
use crate::text::prompt::PromptConfig;
use crate::text::{ChatTemplate, ChatTemplateError, Message, TextTokenizer};

/// What stands for a user in the preference prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Summary {
    /// The kept keywords, joined: no second pass of the language model.
    #[default]
    Keywords,
    /// One line that the language model writes about them, as in the paper's figure.
    Llm,
}

/// Whose keywords stand in the generator's own prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptKeywords {
    /// Those of the whole history, as in the paper.
    #[default]
    History,
    /// Those of the items that retrieval found (ours): what the user likes elsewhere does not reach the drawing.
    Retrieved,
}

/// How prompts reach the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatPrompts {
    /// As a user's message where the tokeniser has a chat template, plain where it has none.
    #[default]
    Auto,
    /// Plain.
    Never,
}

/// How keywords are asked for and kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeywordConfig {
    /// Which keywords of a history are kept.
    pub pool: PoolConfig,
    /// Whose keywords stand in the generator's own prompt; the language model is told those of the whole history either way.
    pub prompt: PromptKeywords,
    /// Which keywords of retrieved items are kept for it; where none is, or nothing is retrieved, those of the history stand there.
    pub retrieved: PoolConfig,
    /// Keywords or a written line.
    pub summary: Summary,
    /// Does an instruction-tuned model get its prompts as messages? The preference prompt never is one: its continuation
    /// is no answer.
    pub chat: ChatPrompts,
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Prompts answered at once.
    pub batch_size: usize,
}

impl Default for KeywordConfig {
    fn default() -> Self {
        Self {
            pool: PoolConfig::default(),
            prompt: PromptKeywords::default(),
            retrieved: PoolConfig {
                min_count: 1,
                num_kept: 2,
            },
            summary: Summary::default(),
            chat: ChatPrompts::default(),
            max_new_tokens: 48,
            batch_size: 32,
        }
    }
}

/// A user in words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserKeywords {
    /// `K_u`, the most frequent first.
    pub keywords: Vec<String>,
    /// The keywords joined by commas, or the language model's line about them.
    pub summary: String,
}

/// Whatever continues prompts.
pub trait Writer {
    /// One continuation per prompt, without the prompt.
    fn write(&self, prompts: &[String]) -> Vec<String>;
}

/// A Llama with its tokeniser as a [`Writer`]: greedy, batched.
#[derive(Debug, Clone)]
pub struct LlamaWriter<'a, B: Backend> {
    model: &'a LlamaForCausalLm<B>,
    tokenizer: &'a TextTokenizer,
    chat: Option<ChatTemplate>,
    end_tokens: Vec<u32>,
    max_new_tokens: usize,
    batch_size: usize,
}

impl<'a, B: Backend> LlamaWriter<'a, B> {
    /// A writer whose answers end at the tokeniser's end token.
    ///
    /// # Errors
    /// When the tokeniser's chat template is to be used and cannot be rendered.
    pub fn new(
        model: &'a LlamaForCausalLm<B>,
        tokenizer: &'a TextTokenizer,
        config: &KeywordConfig,
    ) -> Result<Self, ChatTemplateError> {
        let chat = match config.chat {
            ChatPrompts::Auto => tokenizer.chat_template(),
            ChatPrompts::Never => None,
        };
        if let Some(chat) = &chat {
            chat.render(&[Message::user("Hello")], true)?;
        }
        Ok(Self {
            model,
            tokenizer,
            chat,
            end_tokens: tokenizer.eos_id().into_iter().collect(),
            max_new_tokens: config.max_new_tokens,
            batch_size: config.batch_size.max(1),
        })
    }

    /// The tokens of a prompt; a rendered template brings its own special tokens.
    fn tokens(&self, prompt: &str) -> Vec<u32> {
        let chat = self.chat.as_ref();
        match chat.map(|chat| chat.render(&[Message::user(prompt)], true)) {
            Some(Ok(text)) => self.tokenizer.encode_plain(&text),
            Some(Err(error)) => {
                tracing::warn!("asked plainly: {error}");
                self.tokenizer.encode(prompt)
            }
            None => self.tokenizer.encode(prompt),
        }
    }
}

impl<B: Backend> Writer for LlamaWriter<'_, B> {
    fn write(&self, prompts: &[String]) -> Vec<String> {
        let mut ids: Vec<(usize, Vec<u32>)> = prompts
            .iter()
            .map(|prompt| self.tokens(prompt))
            .enumerate()
            .collect();
        // Prompts of like length share a batch, so that little is padded.
        ids.sort_by_key(|(_, ids)| ids.len());
        let mut answers = vec![String::new(); prompts.len()];
        for batch in ids.chunks(self.batch_size) {
            let rows: Vec<Vec<u32>> = batch.iter().map(|(_, ids)| ids.clone()).collect();
            let written = self
                .model
                .generate(&rows, self.max_new_tokens, &self.end_tokens);
            for ((index, _), tokens) in batch.iter().zip(written) {
                answers[*index] = self.tokenizer.decode(&tokens).trim().to_string();
            }
        }
        answers
    }
}

/// The language model's keyword answer for each item, given as `(caption, text)`.
pub fn item_answers(
    writer: &impl Writer,
    prompts: &PromptConfig,
    items: &[(&str, &str)],
) -> Vec<String> {
    let prompts: Vec<String> = items
        .iter()
        .map(|(caption, text)| prompts.keyword_prompt(caption, text))
        .collect();
    writer.write(&prompts)
}

/// Users in words, from the keyword answers of their history items (oldest first).
pub fn user_keywords(
    writer: &impl Writer,
    prompts: &PromptConfig,
    config: &KeywordConfig,
    histories: &[Vec<&str>],
) -> Vec<UserKeywords> {
    let kept: Vec<Vec<String>> = histories
        .iter()
        .map(|answers| {
            let lists: Vec<Vec<String>> = answers.iter().map(|answer| parse(answer)).collect();
            pool(&lists, &config.pool)
        })
        .collect();
    let summaries = match config.summary {
        Summary::Keywords => kept.iter().map(|keywords| keywords.join(", ")).collect(),
        Summary::Llm => summaries(writer, prompts, &kept),
    };
    kept.into_iter()
        .zip(summaries)
        .map(|(keywords, summary)| UserKeywords { keywords, summary })
        .collect()
}

/// One written line per list; a list without keywords has an empty line.
fn summaries(writer: &impl Writer, prompts: &PromptConfig, kept: &[Vec<String>]) -> Vec<String> {
    let asked: Vec<usize> = (0..kept.len())
        .filter(|user| !kept[*user].is_empty())
        .collect();
    let questions: Vec<String> = asked
        .iter()
        .map(|user| prompts.summary_prompt(&kept[*user]))
        .collect();
    let mut lines = vec![String::new(); kept.len()];
    for (user, line) in asked.into_iter().zip(writer.write(&questions)) {
        lines[user] = line.lines().next().unwrap_or_default().to_string();
    }
    lines
}
