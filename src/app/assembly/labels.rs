//! What each sticker shows, as the judges of style and glyph number it.

use std::collections::BTreeMap;

use super::DataSet;
use crate::evaluation::truth::LabelledItems;

/// Style and glyph of every item, and whether training may see it.
pub struct Labels {
    styles: Vec<usize>,
    glyphs: Vec<usize>,
    held_out: Vec<bool>,
}

impl Labels {
    /// The labels of `data`; none where nobody knows them.
    pub fn of(data: &DataSet) -> Option<Self> {
        let all = &data.stickers()?.stickers;
        Some(Self {
            styles: numbered(all.iter().map(|sticker| sticker.style)),
            glyphs: numbered(all.iter().map(|sticker| sticker.glyph.as_str())),
            held_out: all.iter().map(|sticker| sticker.held_out).collect(),
        })
    }

    /// With the items' embeddings: what judges are made of.
    pub fn items<'a>(&'a self, embeddings: &'a [Vec<f32>]) -> LabelledItems<'a> {
        LabelledItems {
            embeddings,
            styles: &self.styles,
            glyphs: &self.glyphs,
            held_out: &self.held_out,
        }
    }
}

/// Numbers for the distinct words of a list, in order of their first appearance.
fn numbered<T: Ord>(words: impl Iterator<Item = T>) -> Vec<usize> {
    let mut numbers = BTreeMap::new();
    words
        .map(|word| {
            let next = numbers.len();
            *numbers.entry(word).or_insert(next)
        })
        .collect()
}
