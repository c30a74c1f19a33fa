//! Stickers of further glyphs: they show what a style and a shape are without showing any pair of the experiments.

use std::collections::BTreeSet;

use image::RgbImage;

use crate::data::stickers::Sticker;

/// Stickers beside those of the experiments: `ragar data stickers` with all glyphs makes them.
#[derive(Debug, Clone, Copy)]
pub struct ExtraPictures<'a> {
    /// Those held out, and those whose glyph is also among the experiments' stickers, are left out.
    pub stickers: &'a [Sticker],
    /// Their pictures, in the same order.
    pub images: &'a [RgbImage],
}

impl ExtraPictures<'_> {
    /// Places of the stickers that may be learned from beside `known`, whose pictures may be held out.
    pub fn usable(&self, known: &[Sticker]) -> Vec<usize> {
        let known: BTreeSet<&str> = known.iter().map(|s| s.glyph.as_str()).collect();
        let stickers = self.stickers.iter().enumerate();
        stickers
            .filter(|(_, sticker)| !sticker.held_out && !known.contains(sticker.glyph.as_str()))
            .map(|(place, _)| place)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::stickers::Style;

    #[test]
    fn held_out_pairs_and_known_glyphs_stay_out() {
        let sticker = |glyph: &str, held_out| Sticker {
            item: 0,
            glyph: glyph.into(),
            label: glyph.into(),
            tags: Vec::new(),
            group: "food".into(),
            style: Style::ALL[0],
            held_out,
        };
        let all = [
            sticker("apple", false),
            sticker("pear", true),
            sticker("plum", false),
        ];
        let images = vec![RgbImage::new(1, 1); 3];
        let extra = ExtraPictures {
            stickers: &all,
            images: &images,
        };
        assert_eq!(extra.usable(&[sticker("apple", false)]), [2]);
    }
}
