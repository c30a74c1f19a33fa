//! What each sticker shows, as the judges of style and glyph number it.

use std::collections::HashMap;

use super::DataSet;
use crate::evaluation::truth::LabelledItems;
use crate::networks::recogniser::Aspect;

/// Style and glyph of every item, and whether training may see it.
pub struct Labels {
    styles: Numbered,
    glyphs: Numbered,
    held_out: Vec<bool>,
}

/// The distinct words of a list in order of their first appearance, and each entry's number among them.
struct Numbered {
    words: Vec<String>,
    numbers: Vec<usize>,
}

impl Labels {
    /// The labels of `data`; none where nobody knows them.
    pub fn of(data: &DataSet) -> Option<Self> {
        let all = &data.stickers()?.stickers;
        Some(Self {
            styles: Numbered::of(all.iter().map(|sticker| sticker.style.name())),
            glyphs: Numbered::of(all.iter().map(|sticker| sticker.glyph.as_str())),
            held_out: all.iter().map(|sticker| sticker.held_out).collect(),
        })
    }

    /// Glyphs or styles by number.
    pub fn names(&self, aspect: Aspect) -> &[String] {
        match aspect {
            Aspect::Glyph => &self.glyphs.words,
            Aspect::Style => &self.styles.words,
        }
    }

    /// With the items' embeddings.
    pub fn items<'a>(&'a self, embeddings: &'a [Vec<f32>]) -> LabelledItems<'a> {
        LabelledItems {
            embeddings,
            styles: &self.styles.numbers,
            glyphs: &self.glyphs.numbers,
            held_out: &self.held_out,
        }
    }
}

impl Numbered {
    fn of<'a>(entries: impl Iterator<Item = &'a str>) -> Self {
        let mut places = HashMap::new();
        let mut words = Vec::new();
        let numbers = entries
            .map(|entry| {
                *places.entry(entry).or_insert_with(|| {
                    words.push(entry.to_string());
                    words.len() - 1
                })
            })
            .collect();
        Self { words, numbers }
    }
}
