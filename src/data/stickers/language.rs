//! The sticker language: the words in which captions, keywords and prompts name a sticker.
//!
//! Encoders, captioner, language model and generator are all trained on these forms, so every one of them is made here.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::{Sticker, Style};

/// The groups of the shipped set, one word each.
pub const GROUPS: [&str; 7] = [
    "animal",
    "food",
    "face",
    "transport",
    "clothing",
    "object",
    "nature",
];

/// How many tags an item's text shows.
const TEXT_TAGS: usize = 2;

/// `a hamburger`, `an apple`; plural labels (`grapes`) stand alone.
pub fn with_article(label: &str) -> String {
    let plural = label.ends_with('s') && !["ss", "us", "is"].iter().any(|end| label.ends_with(end));
    if plural {
        return label.to_string();
    }
    let silent_h = label.starts_with("hour");
    let sounded_u = label.starts_with("uni");
    let vowel = label.starts_with(['a', 'e', 'i', 'o', 'u']);
    let article = if silent_h || (vowel && !sounded_u) {
        "an"
    } else {
        "a"
    };
    format!("{article} {label}")
}

/// The canonical caption: `a glossy 3d sticker of a hamburger, food`.
pub fn caption(sticker: &Sticker) -> String {
    format!(
        "a {} sticker of {}, {}",
        sticker.style.words(),
        with_article(&sticker.label),
        sticker.group
    )
}

/// The item's text, which says nothing of its style: `hamburger, food, beef, burger`.
pub fn item_text(label: &str, group: &str, tags: &[String]) -> String {
    let mut parts = vec![label, group];
    parts.extend(tags.iter().take(TEXT_TAGS).map(String::as_str));
    parts.join(", ")
}

/// One phrase that keeps style and group together: `3d food`.
pub fn theme_phrase(style: Style, group: &str) -> String {
    format!("{} {group}", style.name())
}

/// What the language model answers when asked for an item's keywords: `3d food, hamburger, beef`.
pub fn keyword_answer(sticker: &Sticker) -> String {
    let mut answer = format!(
        "{}, {}",
        theme_phrase(sticker.style, &sticker.group),
        sticker.label
    );
    if let Some(tag) = sticker.tags.first() {
        answer.push_str(", ");
        answer.push_str(tag);
    }
    answer
}

/// A prompt made of a user's kept phrases and the reference's own words: `3d food, flat animal, hamburger`.
pub fn preference_words(phrases: &[String], subject: &str) -> String {
    let mut words = phrases.to_vec();
    words.push(subject.to_string());
    words.join(", ")
}

/// A description for training text towers: the canonical caption two times in five, else one of the other forms,
/// with or without style, with or without group.
///
/// The preference form mixes the sticker's own theme with themes of other styles and groups, so that whoever is
/// trained on it learns that the label takes the style said of its own group.
pub fn caption_variant<R: Rng>(sticker: &Sticker, rng: &mut R) -> String {
    let label = &sticker.label;
    let group = &sticker.group;
    match rng.random_range(0..20) {
        0..8 => caption(sticker),
        8..10 => format!(
            "a {} sticker of {}",
            sticker.style.words(),
            with_article(label)
        ),
        10 => format!("a sticker of {}", with_article(label)),
        11 => format!("a sticker of {}, {group}", with_article(label)),
        12 => format!("{label}, {group}"),
        13 => item_text(label, group, &sticker.tags),
        14..16 => format!("{}, {label}", theme_phrase(sticker.style, group)),
        16 => keyword_answer(sticker),
        _ => preference_variant(sticker, rng),
    }
}

/// The sticker's own theme among one or two others, in any order, then its label, sometimes its group.
pub fn preference_variant<R: Rng>(sticker: &Sticker, rng: &mut R) -> String {
    let mut phrases = vec![theme_phrase(sticker.style, &sticker.group)];
    let mut groups: Vec<&str> = GROUPS.into_iter().filter(|g| *g != sticker.group).collect();
    groups.shuffle(rng);
    let styles: Vec<Style> = Style::ALL
        .into_iter()
        .filter(|style| *style != sticker.style)
        .collect();
    let others = rng.random_range(1..=2);
    for group in groups.into_iter().take(others) {
        if let Some(style) = styles.choose(rng) {
            phrases.push(theme_phrase(*style, group));
        }
    }
    phrases.shuffle(rng);
    let subject = if rng.random_bool(0.5) {
        format!("{}, {}", sticker.label, sticker.group)
    } else {
        sticker.label.clone()
    };
    preference_words(&phrases, &subject)
}

/// The style a text names first, if any.
pub fn named_style(text: &str) -> Option<Style> {
    words(text).find_map(Style::from_name)
}

/// The longest of `labels` that stands in the text as whole words.
pub fn named_label<'a>(text: &str, labels: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let padded = format!(" {} ", words(text).collect::<Vec<_>>().join(" "));
    labels
        .into_iter()
        .filter(|label| {
            let wanted = words(label).collect::<Vec<_>>().join(" ");
            !wanted.is_empty() && padded.contains(&format!(" {wanted} "))
        })
        .max_by_key(|label| label.len())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}
