//! What the right answers would have the generator told.

use std::collections::HashMap;

use anyhow::Context as _;

use super::Comparison;
use crate::app::exhibition::Visitor;
use crate::data::history::{History, Split};
use crate::data::stickers::theme_phrase;

impl Comparison {
    /// What the generator would be told of every test user whose right answer is known.
    pub(super) fn answers(&self) -> anyhow::Result<HashMap<(String, usize), String>> {
        let folder = self.data.folder();
        let stickers = self.data.stickers().with_context(|| {
            let root = &self.config.data.folder;
            format!(
                "--methods answer needs right answers: {} is no folder of stickers",
                root.display()
            )
        })?;
        let told = |history: &History| {
            let right = &stickers.stickers[history.target?];
            let theme = theme_phrase(right.style, &right.group);
            let text = &folder.catalogue[history.reference].text;
            let prompt = self.config.preparation.generator_prompt(&[theme], text);
            Some(((history.user.clone(), history.reference), prompt))
        };
        let everyone = self.data.users(Split::Test, 0);
        Ok(everyone.into_iter().filter_map(told).collect())
    }

    /// Says for how many users keywords and retrieval lead to the right answer's own prompt.
    pub(super) fn note_alike(
        &self,
        answers: &HashMap<(String, usize), String>,
        visitors: &[Visitor<'_>],
    ) {
        let alike = visitors.iter().filter(|visitor| {
            let key = (visitor.sample.user.clone(), visitor.sample.reference);
            answers.get(&key) == Some(&visitor.sample.global_prompt)
        });
        self.output.note(format!(
            "the generator's own prompt is the right answer's for {} of {} users",
            alike.count(),
            visitors.len()
        ));
    }
}
