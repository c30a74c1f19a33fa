//! What a trained language model is worth: exact answers, greedy decoding.

use std::fmt;

use burn::tensor::backend::Backend;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;

use super::corpus::{Corpus, Exercise};
use crate::data::stickers::{Sticker, caption};
use crate::generation::keywords::{ChatPrompts, KeywordConfig, LlamaWriter, Writer};
use crate::networks::llama::LlamaForCausalLm;
use crate::text::TextTokenizer;

/// Exercises of an evaluation are drawn with this seed, apart from training.
const SEED: u64 = 0x5c04e;

/// Shares of exact answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LanguageScore {
    /// The whole keyword answer is right.
    pub keywords: f64,
    /// The first phrase, style and group, is right.
    pub theme: f64,
    /// The whole summary is right.
    pub summary: f64,
    /// The caption after a preference prompt names the item in the liked style.
    pub preference: f64,
    /// Pairs asked about.
    pub num_pairs: usize,
}

impl fmt::Display for LanguageScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "keywords {:.3} (theme {:.3}), summary {:.3}, preference {:.3}",
            self.keywords, self.theme, self.summary, self.preference
        )
    }
}

/// The score on the pairs that training never saw, `most` of them at most.
pub fn held_out<B: Backend>(
    network: &LlamaForCausalLm<B>,
    tokenizer: &TextTokenizer,
    corpus: &Corpus,
    most: usize,
) -> LanguageScore {
    score(network, tokenizer, corpus, corpus.held_out(), most)
}

/// The score on training pairs, `most` of them at most.
pub fn training<B: Backend>(
    network: &LlamaForCausalLm<B>,
    tokenizer: &TextTokenizer,
    corpus: &Corpus,
    most: usize,
) -> LanguageScore {
    score(network, tokenizer, corpus, corpus.training(), most)
}

fn score<B: Backend>(
    network: &LlamaForCausalLm<B>,
    tokenizer: &TextTokenizer,
    corpus: &Corpus,
    pairs: &[&Sticker],
    most: usize,
) -> LanguageScore {
    let plain = KeywordConfig {
        chat: ChatPrompts::Never,
        ..KeywordConfig::default()
    };
    let writer = LlamaWriter::new(network, tokenizer, &plain)
        .expect("without a chat template there is nothing to refuse");
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    // Spread over the whole set, whose rows are sorted by glyph.
    let stride = pairs.len().div_ceil(most).max(1);
    let pairs: Vec<&Sticker> = pairs.iter().step_by(stride).copied().collect();
    let keywords: Vec<Exercise> = pairs
        .iter()
        .map(|sticker| corpus.keyword(sticker, &caption(sticker)))
        .collect();
    let summaries: Vec<Exercise> = pairs
        .iter()
        .map(|_| corpus.summary(&corpus.likes(&mut random)))
        .collect();
    let preferences: Vec<Exercise> = pairs
        .iter()
        .map(|sticker| corpus.preference(sticker, &mut random))
        .collect();
    let whole = |answer: &str| answer.trim().to_string();
    let theme = |answer: &str| whole(answer.split(',').next().unwrap_or_default());
    let answers = ask(&writer, &keywords);
    LanguageScore {
        keywords: share(&keywords, &answers, whole),
        theme: share(&keywords, &answers, theme),
        summary: share(&summaries, &ask(&writer, &summaries), whole),
        preference: share(&preferences, &ask(&writer, &preferences), whole),
        num_pairs: pairs.len(),
    }
}

fn ask(writer: &impl Writer, exercises: &[Exercise]) -> Vec<String> {
    let prompts: Vec<String> = exercises.iter().map(|e| e.prompt.clone()).collect();
    writer.write(&prompts)
}

fn share(exercises: &[Exercise], answers: &[String], part: impl Fn(&str) -> String) -> f64 {
    let right = exercises
        .iter()
        .zip(answers)
        .filter(|(exercise, answer)| part(&exercise.answer) == part(answer))
        .count();
    right as f64 / exercises.len().max(1) as f64
}
