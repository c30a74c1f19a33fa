//! Which glyphs: the shipped list, or all that every style has.
//!
//! The shipped list (`selection.csv`) was chosen by eye from contact sheets: simple, recognisable, distinct from
//! one another at 64 pixels; no flags, no people with skin tones, no clocks, keycaps, arrows or text buttons.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::Style;
use super::error::StickerError;
use super::language::GROUPS;
use super::packages::{Emoji, hexcode, joined_name};
use super::sources::{Drawing, Sources};

/// `group,label,source_label,retro_icon`: our group and label, emojibase's label, fxemoji's icon name or nothing.
const SHIPPED: &str = include_str!("selection.csv");

/// How many tags of the source are kept.
const NUM_TAGS: usize = 3;

/// Which glyphs to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// The list chosen by eye.
    #[default]
    Shipped,
    /// Every emoji without skin tones that the flat, 3d, cartoon and shaded sets all have.
    All,
}

/// A glyph to draw, with its drawing in each style that has it (in the order of [`Style::ALL`]).
#[derive(Debug, Clone)]
pub struct Glyph {
    /// Code points in hexadecimal, lower case, without `fe0f`.
    pub hexcode: String,
    pub label: String,
    pub tags: Vec<String>,
    pub group: String,
    pub drawings: Vec<(Style, Drawing)>,
}

#[derive(Debug, Deserialize)]
struct ShippedRow {
    group: String,
    label: String,
    source_label: String,
    retro_icon: Option<String>,
}

/// Chooses the glyphs, in the list's order.
///
/// # Errors
/// [`StickerError::Selection`] when a listed glyph is not in the packages, is missing in one of the four complete
/// styles, or repeats a label.
pub fn select(sources: &Sources, selection: Selection) -> Result<Vec<Glyph>, StickerError> {
    match selection {
        Selection::Shipped => shipped(sources),
        Selection::All => Ok(all(sources)),
    }
}

fn shipped(sources: &Sources) -> Result<Vec<Glyph>, StickerError> {
    let by_label: HashMap<&str, &Emoji> = sources
        .table
        .emoji
        .iter()
        .map(|emoji| (emoji.label.as_str(), emoji))
        .collect();
    let counts = tag_counts(sources);
    let mut labels = HashSet::new();
    let mut glyphs = Vec::new();
    let mut reader = csv::Reader::from_reader(SHIPPED.as_bytes());
    for (index, row) in reader.deserialize::<ShippedRow>().enumerate() {
        // The header is row 1.
        let fail = |reason: String| StickerError::Selection {
            row: index + 2,
            reason,
        };
        let row = row.map_err(|error| fail(error.to_string()))?;
        if !labels.insert(row.label.clone()) {
            return Err(fail(format!("the label {:?} stands twice", row.label)));
        }
        let emoji = by_label
            .get(row.source_label.as_str())
            .ok_or_else(|| fail(format!("emojibase has no label {:?}", row.source_label)))?;
        let retro = row.retro_icon.as_deref().filter(|name| !name.is_empty());
        let glyph = glyph(sources, emoji, row.label, row.group, retro, &counts);
        for style in Style::ALL {
            let expected = style != Style::Retro || retro.is_some();
            if expected && !glyph.drawings.iter().any(|(s, _)| *s == style) {
                return Err(fail(format!(
                    "{:?} ({}) has no drawing in style {}",
                    glyph.label,
                    glyph.hexcode,
                    style.name()
                )));
            }
        }
        glyphs.push(glyph);
    }
    Ok(glyphs)
}

fn all(sources: &Sources) -> Vec<Glyph> {
    let counts = tag_counts(sources);
    let mut labels = HashSet::new();
    sources
        .table
        .emoji
        .iter()
        .filter(|emoji| emoji.skins.is_none())
        .filter_map(|emoji| {
            let group = group_of(sources.table.subgroup(emoji)?)?;
            let label = emoji.label.to_lowercase();
            let retro = joined_name(&label);
            let glyph = glyph(
                sources,
                emoji,
                label,
                group.to_string(),
                Some(&retro),
                &counts,
            );
            let complete = glyph
                .drawings
                .iter()
                .filter(|(style, _)| *style != Style::Retro)
                .count()
                == Style::ALL.len() - 1;
            (complete && labels.insert(glyph.label.clone())).then_some(glyph)
        })
        .collect()
}

fn glyph(
    sources: &Sources,
    emoji: &Emoji,
    label: String,
    group: String,
    retro_icon: Option<&str>,
    counts: &HashMap<String, usize>,
) -> Glyph {
    let hexcode = hexcode(&emoji.hexcode);
    let drawings = Style::ALL
        .into_iter()
        .filter_map(|style| Some((style, sources.drawing(&hexcode, retro_icon, style)?)))
        .collect();
    let mut tags = tags(emoji, &label, counts);
    if tags.is_empty()
        && let Some(subgroup) = sources.table.subgroup(emoji)
    {
        // `animal-mammal` says `mammal`, `writing` itself.
        let word = subgroup.split_once('-').map_or(subgroup, |(_, kind)| kind);
        tags.push(word.to_string());
    }
    Glyph {
        hexcode,
        label,
        tags,
        group,
        drawings,
    }
}

/// How many emoji carry each tag.
fn tag_counts(sources: &Sources) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for tag in sources.table.emoji.iter().flat_map(|emoji| &emoji.tags) {
        *counts.entry(tag.to_lowercase()).or_default() += 1;
    }
    counts
}

/// The most widely shared tags that say something the label does not (`fruit` before `fuji`); no group's name, so that
/// a group word always means the group.
fn tags(emoji: &Emoji, label: &str, counts: &HashMap<String, usize>) -> Vec<String> {
    let plural = |word: &str, of: &str| word.strip_suffix('s') == Some(of);
    let same = |a: &str, b: &str| a == b || plural(a, b) || plural(b, a);
    let mut tags: Vec<String> = emoji
        .tags
        .iter()
        .map(|tag| tag.to_lowercase())
        .filter(|tag| {
            let readable = |c: char| c.is_ascii_alphabetic() || c == ' ' || c == '-';
            tag.len() > 1
                && tag.chars().all(readable)
                && !label.split(' ').chain([label]).any(|word| same(tag, word))
                && !GROUPS.iter().any(|group| same(tag, group))
        })
        .collect();
    tags.sort_by_key(|tag| (std::cmp::Reverse(counts.get(tag).copied()), tag.clone()));
    tags.dedup();
    let mut kept: Vec<String> = Vec::new();
    for tag in tags {
        if kept.len() < NUM_TAGS && !kept.iter().any(|earlier| same(earlier, &tag)) {
            kept.push(tag);
        }
    }
    kept
}

/// Our word for an emojibase subgroup; none for clocks, symbols, flags and people.
fn group_of(subgroup: &str) -> Option<&'static str> {
    let (kind, _) = subgroup.split_once('-').unwrap_or((subgroup, ""));
    Some(match kind {
        "animal" => "animal",
        "plant" | "sky" => "nature",
        "food" | "drink" | "dishware" => "food",
        "face" | "cat" | "monkey" => "face",
        "transport" => "transport",
        "place" | "hotel" => "place",
        "clothing" => "clothing",
        "event" | "award" | "sport" | "game" | "arts" => "activity",
        "sound" | "music" | "musical" | "phone" | "computer" | "light" | "book" | "money"
        | "mail" | "writing" | "office" | "lock" | "tool" | "science" | "medical" | "household"
        | "other" => "object",
        _ => return None,
    })
}
