//! The exercises of the language model, drawn from the words of the training pairs.

use std::collections::HashMap;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde::{Deserialize, Serialize};

use crate::data::stickers::language::with_article;
use crate::data::stickers::{
    GROUPS, Sticker, Style, caption, item_text, keyword_answer, theme_phrase,
};
use crate::pretraining::error::PretrainingError;
use crate::text::prompt::PromptConfig;

/// Groups whose members are counted: "flat animals", but "3d food".
const COUNTED: [&str; 3] = ["animal", "face", "object"];

/// Weights of the kinds of exercise, and how rough the captions are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mixture {
    /// A caption, learned whole.
    pub caption: f64,
    /// A keyword prompt and its answer.
    pub keyword: f64,
    /// A summary prompt and its answer.
    pub summary: f64,
    /// A preference prompt, learned whole.
    pub preference: f64,
    /// The share of preference prompts that go on with the caption of the item as the user would have it.
    pub preference_answered: f64,
    /// The share of keyword prompts whose caption names another glyph, as a captioner may: the text is right then.
    pub wrong_captions: f64,
    /// The share of keyword prompts whose caption leaves out the group.
    pub short_captions: f64,
}

impl Default for Mixture {
    fn default() -> Self {
        Self {
            caption: 0.1,
            keyword: 0.45,
            summary: 0.2,
            preference: 0.25,
            preference_answered: 0.5,
            wrong_captions: 0.15,
            short_captions: 0.1,
        }
    }
}

impl Mixture {
    /// # Errors
    /// When a weight is negative, all are zero, or a share lies outside [0, 1].
    pub fn validate(&self) -> Result<(), PretrainingError> {
        let weights = [
            ("mixture.caption", self.caption),
            ("mixture.keyword", self.keyword),
            ("mixture.summary", self.summary),
            ("mixture.preference", self.preference),
        ];
        let shares = [
            ("mixture.preference_answered", self.preference_answered),
            ("mixture.wrong_captions", self.wrong_captions),
            ("mixture.short_captions", self.short_captions),
        ];
        let refuse = |key, found: f64, expected| {
            Err(PretrainingError::Setting {
                key,
                found: found.to_string(),
                expected,
            })
        };
        let usable = |weight: f64| weight.is_finite() && weight >= 0.0;
        if let Some((key, weight)) = weights.into_iter().find(|(_, weight)| !usable(*weight)) {
            return refuse(key, weight, "at least 0");
        }
        if weights.iter().map(|(_, weight)| weight).sum::<f64>() <= 0.0 {
            return refuse(
                "mixture.keyword",
                self.keyword,
                "above 0 where all others are 0",
            );
        }
        match shares
            .into_iter()
            .find(|(_, share)| !(0.0..=1.0).contains(share))
        {
            Some((key, share)) => refuse(key, share, "between 0 and 1"),
            None => Ok(()),
        }
    }
}

/// A text to learn: what is given, and what is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exercise {
    /// Given.
    pub prompt: String,
    /// To be said.
    pub answer: String,
    /// Whether the text ends there.
    pub ends: bool,
}

/// The pairs and the prompts that exercises are made of.
#[derive(Debug)]
pub struct Corpus<'a> {
    training: Vec<&'a Sticker>,
    /// Training pairs by style, and by glyph: what a pair is confused or compared with is never a held-out pair.
    by_style: HashMap<Style, Vec<&'a Sticker>>,
    by_glyph: HashMap<&'a str, Vec<&'a Sticker>>,
    held_out: Vec<&'a Sticker>,
    prompts: &'a PromptConfig,
    mixture: &'a Mixture,
}

impl<'a> Corpus<'a> {
    /// Divides `stickers` by what is held out.
    ///
    /// # Errors
    /// When there are not two pairs to learn from, or none to measure on.
    pub fn new(
        stickers: &'a [Sticker],
        prompts: &'a PromptConfig,
        mixture: &'a Mixture,
    ) -> Result<Self, PretrainingError> {
        let (held_out, training): (Vec<_>, Vec<_>) =
            stickers.iter().partition(|sticker| sticker.held_out);
        if training.len() < 2 || held_out.is_empty() {
            return Err(PretrainingError::Data(format!(
                "{} pairs to learn from and {} held out: at least 2 and 1 are needed",
                training.len(),
                held_out.len()
            )));
        }
        let mut by_style: HashMap<Style, Vec<&Sticker>> = HashMap::new();
        let mut by_glyph: HashMap<&str, Vec<&Sticker>> = HashMap::new();
        for sticker in &training {
            by_style.entry(sticker.style).or_default().push(sticker);
            by_glyph.entry(&sticker.glyph).or_default().push(sticker);
        }
        Ok(Self {
            training,
            by_style,
            by_glyph,
            held_out,
            prompts,
            mixture,
        })
    }

    /// The pairs to learn from.
    pub fn training(&self) -> &[&'a Sticker] {
        &self.training
    }

    /// The pairs to measure on.
    pub fn held_out(&self) -> &[&'a Sticker] {
        &self.held_out
    }

    /// Every word that training can show, for the vocabulary.
    pub fn vocabulary_texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for sticker in &self.training {
            let exercise = self.keyword(sticker, &caption(sticker));
            texts.push(format!("{}{}", exercise.prompt, exercise.answer));
            let likes = [theme_phrase(sticker.style, &sticker.group)];
            let exercise = self.summary(&likes);
            texts.push(format!("{}{}", exercise.prompt, exercise.answer));
            let prompt = self.prompts.preference_prompt(&likes[0], &sticker.label);
            texts.push(format!("{}{}", prompt.before, prompt.after));
        }
        texts
    }

    /// One exercise.
    pub fn draw(&self, random: &mut impl Rng) -> Exercise {
        let mixture = self.mixture;
        let sticker = self.any(random);
        let total = mixture.caption + mixture.keyword + mixture.summary + mixture.preference;
        let mut place = random.random_range(0.0..total);
        if place < mixture.caption {
            return Exercise {
                prompt: String::new(),
                answer: caption(sticker),
                ends: true,
            };
        }
        place -= mixture.caption;
        if place < mixture.keyword {
            let words = self.rough_caption(sticker, random);
            return self.keyword(sticker, &words);
        }
        place -= mixture.keyword;
        if place < mixture.summary {
            return self.summary(&self.likes(random));
        }
        let answered = random.random_bool(mixture.preference_answered);
        let exercise = self.preference(sticker, random);
        if answered {
            // The question is learned as well, so that its states carry its words.
            Exercise {
                prompt: String::new(),
                answer: exercise.prompt + &exercise.answer,
                ends: true,
            }
        } else {
            Exercise {
                prompt: String::new(),
                answer: exercise.prompt,
                ends: false,
            }
        }
    }

    fn any(&self, random: &mut impl Rng) -> &'a Sticker {
        self.training[random.random_range(0..self.training.len())]
    }

    /// Would `label` beside the themes among `likes` name a held-out pair?
    fn names_held_out(&self, likes: &[String], label: &str) -> bool {
        self.held_out.iter().any(|sticker| {
            sticker.label == label && likes.contains(&theme_phrase(sticker.style, &sticker.group))
        })
    }

    /// A caption as the captioner might give it: the style right, the rest sometimes not.
    fn rough_caption(&self, sticker: &Sticker, random: &mut impl Rng) -> String {
        if random.random_bool(self.mixture.wrong_captions) {
            return caption(one_of(self.by_style.get(&sticker.style), random).unwrap_or(sticker));
        }
        if random.random_bool(self.mixture.short_captions) {
            let (style, label) = (sticker.style.words(), with_article(&sticker.label));
            return format!("a {style} sticker of {label}");
        }
        caption(sticker)
    }

    /// A keyword prompt about `sticker`, whose picture is described as `caption`.
    pub fn keyword(&self, sticker: &Sticker, caption: &str) -> Exercise {
        let text = item_text(&sticker.label, &sticker.group, &sticker.tags);
        Exercise {
            prompt: self.prompts.keyword_prompt(caption, &text),
            answer: format!(" {}", keyword_answer(sticker)),
            ends: true,
        }
    }

    /// A summary prompt about kept keywords.
    pub fn summary(&self, keywords: &[String]) -> Exercise {
        Exercise {
            prompt: self.prompts.summary_prompt(keywords),
            answer: format!(" {}", summary_answer(keywords)),
            ends: true,
        }
    }

    /// Keywords as pooling leaves them: one to three themes of different groups, mostly first, and some other words.
    pub fn likes(&self, random: &mut impl Rng) -> Vec<String> {
        let mut groups = GROUPS;
        groups.shuffle(random);
        let mut likes: Vec<String> = groups[..random.random_range(1..=3)]
            .iter()
            .map(|group| theme_phrase(any_style(random), group))
            .collect();
        for _ in 0..random.random_range(0..=3) {
            let sticker = self.any(random);
            let word = match sticker.tags.choose(random) {
                Some(tag) if random.random_bool(0.5) => tag,
                _ => &sticker.label,
            };
            if !likes.contains(word) && !self.names_held_out(&likes, &sticker.label) {
                likes.push(word.clone());
            }
        }
        if random.random_bool(0.3) {
            likes.shuffle(random);
        }
        likes
    }

    /// A preference prompt of a user who likes `sticker`'s group in its style and other groups in others; the item
    /// is described without style, or in another one. The answer is the item as the user would have it.
    pub fn preference(&self, sticker: &Sticker, random: &mut impl Rng) -> Exercise {
        let mut likes = vec![theme_phrase(sticker.style, &sticker.group)];
        let mut groups: Vec<&str> = GROUPS.into_iter().filter(|g| *g != sticker.group).collect();
        groups.shuffle(random);
        for group in groups.iter().take(random.random_range(0..=2)) {
            likes.push(theme_phrase(any_style(random), group));
        }
        likes.shuffle(random);
        for _ in 0..random.random_range(0..=2) {
            let label = &self.any(random).label;
            if !self.names_held_out(&likes, label) {
                likes.push(label.clone());
            }
        }
        let preference = if random.random_bool(0.3) {
            summary_answer(&likes)
        } else {
            likes.join(", ")
        };
        let shown = one_of(self.by_glyph.get(sticker.glyph.as_str()), random);
        // Mostly the reference's own keywords, as the method has it.
        let reference = match (random.random_range(0..6), shown) {
            (0..3, Some(shown)) => keyword_answer(shown),
            (3, Some(shown)) => caption(shown),
            (4, _) => format!("{}, {}", sticker.label, sticker.group),
            _ => item_text(&sticker.label, &sticker.group, &sticker.tags),
        };
        let prompt = self.prompts.preference_prompt(&preference, &reference);
        Exercise {
            prompt: prompt.before + &prompt.after,
            answer: format!(" {}", caption(sticker)),
            ends: true,
        }
    }
}

fn one_of<'a>(stickers: Option<&Vec<&'a Sticker>>, random: &mut impl Rng) -> Option<&'a Sticker> {
    stickers?.choose(random).copied()
}

fn any_style(random: &mut impl Rng) -> Style {
    Style::ALL[random.random_range(0..Style::ALL.len())]
}

/// One line about kept keywords: "likes 3d food and flat animals". Themes alone are named; where there is none, the
/// first three keywords.
pub fn summary_answer(keywords: &[String]) -> String {
    let themes: Vec<String> = keywords.iter().filter_map(|k| plural_theme(k)).collect();
    let named = if themes.is_empty() {
        keywords.iter().take(3).cloned().collect()
    } else {
        themes
    };
    match named.split_last() {
        None => "likes nothing in particular".into(),
        Some((last, [])) => format!("likes {last}"),
        Some((last, first)) => format!("likes {} and {last}", first.join(", ")),
    }
}

/// "flat animal" as "flat animals"; nothing for keywords of another form.
fn plural_theme(keyword: &str) -> Option<String> {
    let (style, group) = keyword.split_once(' ')?;
    Style::from_name(style)?;
    if !GROUPS.contains(&group) {
        return None;
    }
    let plural = if COUNTED.contains(&group) { "s" } else { "" };
    Some(format!("{style} {group}{plural}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_name_themes_only() {
        let answer = |words: &[&str]| {
            summary_answer(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(
            answer(&["3d food", "flat animal", "pear"]),
            "likes 3d food and flat animals"
        );
        assert_eq!(
            answer(&["retro face", "fruit", "shaded nature", "flat object"]),
            "likes retro faces, shaded nature and flat objects"
        );
        assert_eq!(answer(&["pear"]), "likes pear");
        assert_eq!(answer(&[]), "likes nothing in particular");
    }
}
