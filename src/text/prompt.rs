//! The prompts of the method, as templates with named places.
//!
//! The paper does not give its prompts; these are ours. A template is filled in one pass, so a caption
//! that happens to contain a place's name stays as it is.

use serde::{Deserialize, Serialize};

/// The three prompts of the language model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptConfig {
    /// Asks for one item's keywords. Places: `{caption}` (the captioner's words for the image) and
    /// `{text}` (the item's own text).
    pub keyword: String,
    /// Asks for one line about a user. Place: `{keywords}`.
    pub summary: String,
    /// Asks for the personalised item. Places: `{preference}` (keywords or summary of the user),
    /// `{reference}` (words of the reference item) and `{images}` (where the `[IMG]` tokens stand).
    pub preference: String,
}

impl Default for PromptConfig {
    fn default() -> Self {
        Self {
            keyword: "Caption: {caption}\nText: {text}\nKeywords:".into(),
            summary: "Keywords: {keywords}\nSummary:".into(),
            preference: "The user likes: {preference}\nItem: {reference}\nImage:{images}".into(),
        }
    }
}

/// A template that cannot be filled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PromptError {
    /// A place that the prompt needs is not there.
    #[error(
        "prompts.{prompt} lacks {{{place}}}: without it the prompt would not say what it is about"
    )]
    Missing {
        /// The prompt's field.
        prompt: &'static str,
        /// The place.
        place: &'static str,
    },
    /// A place that the prompt does not know.
    #[error("prompts.{prompt} holds {{{place}}}, which is not one of {known}")]
    Unknown {
        /// The prompt's field.
        prompt: &'static str,
        /// The place as written.
        place: String,
        /// The places there are.
        known: String,
    },
    /// The image tokens stand in more than one place.
    #[error("prompts.preference holds {{images}} {found} times; it must stand there once")]
    Images {
        /// How often.
        found: usize,
    },
}

/// A preference prompt: text, then the `[IMG]` tokens, then text that may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferencePrompt {
    /// Before the image tokens.
    pub before: String,
    /// After the image tokens.
    pub after: String,
}

const KEYWORD: [&str; 2] = ["caption", "text"];
const SUMMARY: [&str; 1] = ["keywords"];
const PREFERENCE: [&str; 3] = ["preference", "reference", "images"];

impl PromptConfig {
    /// Checks that every prompt can be filled and says what it must.
    ///
    /// # Errors
    /// Names the first prompt and place that is wrong.
    pub fn validate(&self) -> Result<(), PromptError> {
        check("keyword", &self.keyword, &KEYWORD, &KEYWORD[..1])?;
        check("summary", &self.summary, &SUMMARY, &SUMMARY)?;
        check("preference", &self.preference, &PREFERENCE, &PREFERENCE)?;
        match self.preference.matches("{images}").count() {
            1 => Ok(()),
            found => Err(PromptError::Images { found }),
        }
    }

    /// The prompt for one item's keywords.
    pub fn keyword_prompt(&self, caption: &str, text: &str) -> String {
        fill(&self.keyword, &[("caption", caption), ("text", text)])
    }

    /// The prompt for one line about a user.
    pub fn summary_prompt(&self, keywords: &[String]) -> String {
        fill(&self.summary, &[("keywords", &keywords.join(", "))])
    }

    /// The prompt for the personalised item.
    pub fn preference_prompt(&self, preference: &str, reference: &str) -> PreferencePrompt {
        let (before, after) = self
            .preference
            .split_once("{images}")
            .unwrap_or((&self.preference, ""));
        let values = [("preference", preference), ("reference", reference)];
        PreferencePrompt {
            before: fill(before, &values),
            after: fill(after, &values),
        }
    }
}

/// The places of a template, as written between braces. A place is lower-case letters only; other
/// braces are text.
fn places(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|piece| {
        let (name, _) = piece.split_once('}')?;
        is_place(name).then_some(name)
    })
}

fn is_place(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn check(
    prompt: &'static str,
    template: &str,
    known: &[&'static str],
    needed: &[&'static str],
) -> Result<(), PromptError> {
    if let Some(place) = places(template).find(|place| !known.contains(place)) {
        let known: Vec<String> = known.iter().map(|place| format!("{{{place}}}")).collect();
        return Err(PromptError::Unknown {
            prompt,
            place: place.into(),
            known: known.join(", "),
        });
    }
    match needed
        .iter()
        .find(|place| !places(template).any(|found| found == **place))
    {
        Some(place) => Err(PromptError::Missing { prompt, place }),
        None => Ok(()),
    }
}

/// Puts values into their places, from left to right, without looking into what was put.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        filled.push_str(&rest[..start]);
        rest = &rest[start..];
        let found = rest[1..].split_once('}').and_then(|(name, after)| {
            let (_, value) = values.iter().find(|(place, _)| *place == name)?;
            Some((*value, after))
        });
        match found {
            Some((value, after)) => {
                filled.push_str(value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_filled_in_one_pass() {
        let prompts = PromptConfig::default();
        prompts.validate().unwrap();
        assert_eq!(
            prompts.keyword_prompt("a {text} sticker", "pear, food"),
            "Caption: a {text} sticker\nText: pear, food\nKeywords:"
        );
        let prompt = prompts.preference_prompt("3d food", "{images}");
        assert_eq!(
            prompt.before,
            "The user likes: 3d food\nItem: {images}\nImage:"
        );
        assert_eq!(prompt.after, "");
    }

    #[test]
    fn wrong_templates_are_named() {
        let wrong = |prompts: PromptConfig| prompts.validate().unwrap_err().to_string();
        let error = wrong(PromptConfig {
            keyword: "{caption} {txt}".into(),
            ..PromptConfig::default()
        });
        assert!(
            error.contains("{txt}") && error.contains("{text}"),
            "{error}"
        );
        let error = wrong(PromptConfig {
            summary: "Summarise".into(),
            ..PromptConfig::default()
        });
        assert!(error.contains("{keywords}"), "{error}");
        let error = wrong(PromptConfig {
            preference: "{preference} {reference} {images} {images}".into(),
            ..PromptConfig::default()
        });
        assert!(error.contains("2 times"), "{error}");
    }
}
