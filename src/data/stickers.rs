//! The sticker benchmark: the same glyphs in several art styles, and users whose right answer is known.
//!
//! A user likes one group in one style and another group in another; the reference is a glyph of a liked group in a
//! third style; the right answer, that glyph in the liked style, exists as a picture. One (glyph, style) pair in ten
//! is held out of every training; validation and test targets come from those only.
//!
//! [`build`] draws the set from unpacked npm packages; [`Stickers::open`] reads it back. Nothing here downloads.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod error;
pub mod folder;
pub mod held_out;
pub mod language;
pub mod packages;
pub mod render;
pub mod selection;
pub mod sources;
pub mod users;

mod build;
mod notices;

pub use build::{BuildReport, StickerOptions, build};
pub use error::StickerError;
pub use folder::Stickers;
pub use language::{GROUPS, caption, caption_variant, item_text, keyword_answer, theme_phrase};
pub use selection::Selection;
pub use users::UserOptions;

/// Random streams of one seed, so that no choice disturbs another.
pub(crate) const HELD_OUT_STREAM: u64 = 1;
pub(crate) const TARGET_STREAM: u64 = 2;
pub(crate) const FIRST_USER_STREAM: u64 = 1000;

/// An art style.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Style {
    #[serde(rename = "flat")]
    Flat,
    #[serde(rename = "3d")]
    Glossy,
    #[serde(rename = "cartoon")]
    Cartoon,
    #[serde(rename = "shaded")]
    Shaded,
    #[serde(rename = "retro")]
    Retro,
}

impl Style {
    pub const ALL: [Style; 5] = [
        Style::Flat,
        Style::Glossy,
        Style::Cartoon,
        Style::Shaded,
        Style::Retro,
    ];

    /// The one word that names it, in files and in keywords.
    pub fn name(self) -> &'static str {
        match self {
            Style::Flat => "flat",
            Style::Glossy => "3d",
            Style::Cartoon => "cartoon",
            Style::Shaded => "shaded",
            Style::Retro => "retro",
        }
    }

    /// The words that name it in captions.
    pub fn words(self) -> &'static str {
        match self {
            Style::Flat => "smooth flat",
            Style::Glossy => "glossy 3d",
            Style::Cartoon => "simple cartoon",
            Style::Shaded => "soft shaded",
            Style::Retro => "bold retro",
        }
    }

    /// The style called `name`.
    pub fn from_name(name: &str) -> Option<Style> {
        Style::ALL.into_iter().find(|style| style.name() == name)
    }
}

impl std::fmt::Display for Style {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One glyph in one style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticker {
    /// Position in the catalogue.
    pub item: usize,
    /// Code points in hexadecimal; the same in every style.
    pub glyph: String,
    pub label: String,
    pub tags: Vec<String>,
    pub group: String,
    pub style: Style,
    /// Never part of any training.
    pub held_out: bool,
}

/// One row of `stickers.csv`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StickerRow {
    pub item_id: String,
    pub glyph: String,
    pub label: String,
    /// Separated by `;`.
    pub tags: String,
    pub group: String,
    pub style: Style,
    pub held_out: bool,
}

/// Where a sticker's picture lies inside its folder, which is also its id's source: `images/flat-1f354.png`.
pub(crate) fn image_path(id: &str) -> PathBuf {
    PathBuf::from("images").join(format!("{id}.png"))
}
