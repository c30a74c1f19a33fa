//! Samples of users: keywords, prompts, retrieval.

use serde::{Deserialize, Serialize};

use crate::data::history::History;
use crate::data::item::Catalogue;
use crate::generation::keywords::{KeywordConfig, PromptKeywords, UserKeywords};
use crate::generation::sample::Sample;
use crate::retrieval::{RetrievalConfig, fuse, retrieve};
use crate::text::TextTokenizer;
use crate::text::keyword::{parse, pool};
use crate::text::prompt::PromptConfig;

use super::items::ItemFeatures;

/// How samples are put into words (not in the paper).
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PreparationConfig {
    /// The generator's own prompt, with `{keywords}` (K_u) and `{reference}` (the reference's own words).
    pub global_prompt: String,
    /// An item's own words, as the generator is told them, are the first so many comma-separated parts of its text; 0 keeps all.
    pub reference_parts: usize,
    /// Items a history must have at least.
    pub min_history: usize,
    /// The newest so many items of a longer history are kept (paper: 20).
    pub max_history: usize,
}

impl Default for PreparationConfig {
    fn default() -> Self {
        Self {
            global_prompt: "{keywords}, {reference}".into(),
            reference_parts: 0,
            min_history: 1,
            max_history: 20,
        }
    }
}

impl PreparationConfig {
    /// What the generator is told of an item with this text, whichever method draws.
    pub fn words(&self, text: &str) -> String {
        match self.reference_parts {
            0 => text.to_string(),
            parts => text
                .split(',')
                .take(parts)
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    /// The generator's own prompt for a reference with this text, drawn to these keywords.
    pub fn generator_prompt(&self, keywords: &[String], text: &str) -> String {
        let prompt = self
            .global_prompt
            .replace("{keywords}", &keywords.join(", "))
            .replace("{reference}", &self.words(text));
        prompt.trim_start_matches(", ").to_string()
    }

    /// Refuses values without a meaning, with the reason.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if !self.global_prompt.contains("{reference}") {
            return Err(
                "global_prompt lacks {reference}: the generator would not know what to draw".into(),
            );
        }
        if self.min_history == 0 || self.max_history < self.min_history {
            return Err(format!(
                "min_history = {} and max_history = {} must be at least 1 and in order",
                self.min_history, self.max_history
            ));
        }
        Ok(())
    }
}

/// A history that gives no sample.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PreparationError {
    /// Too few items.
    #[error(
        "user {user} has {found} history items, preparation.min_history wants {wanted}: \
         lower it, or leave the user out with --skip-bad"
    )]
    Short {
        user: String,
        found: usize,
        wanted: usize,
    },
    /// The ranking model does not know the user.
    #[error("user {user} is unknown to the ranking model: interactions.csv has no line of it")]
    Unranked { user: String },
    /// A language model that continues to nothing.
    #[error("the preference prompt of user {user} has no token")]
    EmptyPrompt { user: String },
}

/// Everything that turns a history into a [`Sample`].
pub struct Preparation<'a> {
    /// The items.
    pub catalogue: &'a Catalogue,
    /// What the frozen networks say of them.
    pub items: &'a ItemFeatures,
    /// The language model's prompts.
    pub prompts: &'a PromptConfig,
    /// Its tokeniser.
    pub tokenizer: &'a TextTokenizer,
    /// Longest preference prompt in tokens, its beginning cut off beyond.
    pub max_prompt_tokens: usize,
    /// Retrieval's settings.
    pub retrieval: &'a RetrievalConfig,
    /// Whose keywords the generator is told.
    pub keywords: &'a KeywordConfig,
    /// Settings of this room.
    pub config: &'a PreparationConfig,
}

impl Preparation<'_> {
    /// The items of a history that count: the newest `max_history`.
    pub fn kept<'h>(&self, history: &'h History) -> &'h [usize] {
        let items = &history.history;
        &items[items.len().saturating_sub(self.config.max_history)..]
    }

    /// The sample of one history, whose user is row `user_index` of the ranking model.
    ///
    /// # Errors
    /// When the history is too short or its prompt is empty.
    pub fn sample(
        &self,
        history: &History,
        user_index: Option<usize>,
        words: &UserKeywords,
    ) -> Result<Sample, PreparationError> {
        let user = || history.user.clone();
        let kept = self.kept(history);
        if kept.len() < self.config.min_history {
            return Err(PreparationError::Short {
                user: user(),
                found: kept.len(),
                wanted: self.config.min_history,
            });
        }
        let user_index = user_index.ok_or_else(|| PreparationError::Unranked { user: user() })?;
        let reference = history.reference;

        // (2)–(5) Retrieval.
        let semantic: Vec<&[f32]> = kept
            .iter()
            .map(|i| self.items.semantic[*i].as_slice())
            .collect();
        let visual: Vec<&[f32]> = kept
            .iter()
            .map(|i| self.items.visual[*i].as_slice())
            .collect();
        let reference_semantic = &self.items.semantic[reference];
        let mut retrieved = retrieve(&semantic, reference_semantic, self.retrieval.k);
        let preference = if self.retrieval.k == 0 {
            let mut whole = retrieve(&semantic, reference_semantic, kept.len());
            whole.similarities.fill(1.0);
            fuse(&whole, &visual, self.retrieval)
        } else {
            fuse(&retrieved, &visual, self.retrieval)
        };
        let found: Vec<usize> = retrieved.positions.iter().map(|at| kept[*at]).collect();
        let skipped = history.history.len() - kept.len();
        retrieved
            .positions
            .iter_mut()
            .for_each(|place| *place += skipped);

        // (6)–(7) Words.
        let reference_keywords = parse(&self.items.keywords[reference]).join(", ");
        let prompt = self
            .prompts
            .preference_prompt(&words.summary, &reference_keywords);
        let ids = self.tokenizer.encode(&prompt.before);
        let ids = ids[ids.len().saturating_sub(self.max_prompt_tokens)..].to_vec();
        if ids.is_empty() {
            return Err(PreparationError::EmptyPrompt { user: user() });
        }

        // (9) The generator's own prompt.
        let history_prompt = self.generator_prompt(&words.keywords, reference);
        let global_prompt = match self.prompt_keywords(&found) {
            Some(keywords) => self.generator_prompt(&keywords, reference),
            None => history_prompt.clone(),
        };
        let item = &self.catalogue[reference];
        let captions = retrieved.positions.iter();
        let captions = captions.map(|place| self.items.captions[history.history[*place]].clone());
        Ok(Sample {
            retrieved_captions: captions.collect(),
            reference_caption: self.items.captions[reference].clone(),
            user: user(),
            user_index,
            reference,
            reference_id: item.id.clone(),
            keywords: words.keywords.clone(),
            summary: words.summary.clone(),
            preference_prompt: prompt.before,
            preference_ids: ids,
            global_prompt,
            history_prompt,
            retrieved: retrieved.positions,
            retrieved_preference: preference.0,
            reference_semantic: reference_semantic.clone(),
            reference_visual: self.items.visual[reference].clone(),
        })
    }

    fn generator_prompt(&self, keywords: &[String], reference: usize) -> String {
        let text = &self.catalogue[reference].text;
        self.config.generator_prompt(keywords, text)
    }

    /// The keywords of retrieved items, the most similar first, where they stand in the generator's prompt and there are any.
    fn prompt_keywords(&self, found: &[usize]) -> Option<Vec<String>> {
        if self.keywords.prompt == PromptKeywords::History {
            return None;
        }
        // Pooling prefers what comes later.
        let answers = found.iter().rev();
        let lists: Vec<Vec<String>> = answers
            .map(|item| parse(&self.items.keywords[*item]))
            .collect();
        let kept = pool(&lists, &self.keywords.retrieved);
        (!kept.is_empty()).then_some(kept)
    }
}
