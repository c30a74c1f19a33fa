//! Samples of users: words, retrieval, and the user's row in the ranking model.

use std::collections::BTreeSet;

use super::{DataSet, Language};
use crate::app::config::RunConfig;
use crate::app::output::Output;
use crate::data::history::History;
use crate::generation::keywords::{LlamaWriter, user_keywords};
use crate::generation::sample::Sample;
use crate::preparation::{ItemFeatures, Preparation};

/// The items whose captions and keywords these histories need.
pub fn items_of(histories: &[&History]) -> BTreeSet<usize> {
    histories
        .iter()
        .flat_map(|history| history.history.iter().chain([&history.reference]))
        .copied()
        .collect()
}

/// A sample for each history, with the history it came from; `row` is a user's row in the ranking model. With `data.skip_bad`, a history that gives none is reported and
/// left out.
///
/// # Errors
/// The first history that gives no sample.
pub fn samples<'h>(
    config: &RunConfig,
    data: &DataSet,
    language: &Language,
    items: &ItemFeatures,
    row: impl Fn(&str) -> Option<usize>,
    histories: &[&'h History],
    output: Output,
) -> anyhow::Result<Vec<(&'h History, Sample)>> {
    let preparation = Preparation {
        catalogue: &data.folder().catalogue,
        items,
        prompts: &config.prompts,
        tokenizer: &language.tokenizer,
        max_prompt_tokens: config.preference.max_prompt_tokens,
        retrieval: &config.retrieval,
        keywords: &config.keywords,
        config: &config.preparation,
    };
    let answers: Vec<Vec<&str>> = histories
        .iter()
        .map(|history| {
            let kept = preparation.kept(history).iter();
            kept.map(|item| items.keywords[*item].as_str()).collect()
        })
        .collect();
    let writer = LlamaWriter::new(&language.model, &language.tokenizer, &config.keywords)?;
    let words = user_keywords(&writer, &config.prompts, &config.keywords, &answers);
    let mut samples = Vec::with_capacity(histories.len());
    for (history, words) in histories.iter().zip(&words) {
        match preparation.sample(history, row(&history.user), words) {
            Ok(sample) => samples.push((*history, sample)),
            Err(error) if config.data.skip_bad => output.note(format!("skipped: {error}")),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(samples)
}
