//! What a captioner gets right.

use std::fmt;

use burn::tensor::{Device, backend::Backend};
use image::RgbImage;
use serde::Serialize;

use crate::data::stickers::language::{named_label, named_style};
use crate::data::stickers::{Sticker, caption};
use crate::networks::blip2::{Blip2Error, Blip2ForConditionalGeneration, CaptionOptions};
use crate::networks::clip::ClipPreprocessing;
use crate::text::TextTokenizer;

/// Images captioned at once.
const BATCH: usize = 64;

/// Fractions of captions, in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CaptionScore {
    /// Name the right style.
    pub style: f64,
    /// Name the right label.
    pub label: f64,
    /// Name the right group.
    pub group: f64,
    /// Are the canonical caption, word for word.
    pub exact: f64,
    /// How many captions.
    pub count: usize,
}

impl fmt::Display for CaptionScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |fraction: f64| 100.0 * fraction;
        write!(
            f,
            "style {:.1} %, label {:.1} %, group {:.1} %, exact {:.1} % of {}",
            percent(self.style),
            percent(self.label),
            percent(self.group),
            percent(self.exact),
            self.count
        )
    }
}

/// A captioner and how it is asked.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a, B: Backend> {
    pub network: &'a Blip2ForConditionalGeneration<B>,
    pub tokenizer: &'a TextTokenizer,
    pub preprocessing: &'a ClipPreprocessing,
    pub options: &'a CaptionOptions,
}

impl<B: Backend> Judge<'_, B> {
    /// Captions the images at `indices` and counts what the captions name, among the labels of all `stickers`.
    ///
    /// # Errors
    /// As [`Blip2ForConditionalGeneration::caption`].
    pub fn score(
        &self,
        stickers: &[Sticker],
        images: &[RgbImage],
        indices: &[usize],
        device: &Device<B>,
    ) -> Result<CaptionScore, Blip2Error> {
        let mut right = [0usize; 4];
        for chunk in indices.chunks(BATCH) {
            let shown: Vec<&RgbImage> = chunk.iter().map(|&index| &images[index]).collect();
            let pixels = self.preprocessing.to_pixels::<B>(&shown, device);
            let texts = self.network.caption(pixels, None, self.options)?;
            for (&index, ids) in chunk.iter().zip(texts) {
                let (text, sticker) = (self.tokenizer.decode(&ids), &stickers[index]);
                let text = text.trim();
                let (head, group) = text.rsplit_once(", ").unwrap_or((text, ""));
                let labels = stickers.iter().map(|sticker| sticker.label.as_str());
                let named = [
                    named_style(text) == Some(sticker.style),
                    named_label(head, labels) == Some(&sticker.label),
                    group == sticker.group,
                    text == caption(sticker),
                ];
                for (count, right) in right.iter_mut().zip(named) {
                    *count += usize::from(right);
                }
            }
        }
        let count = indices.len();
        let [style, label, group, exact] = right.map(|right| right as f64 / count.max(1) as f64);
        Ok(CaptionScore {
            style,
            label,
            group,
            exact,
            count,
        })
    }
}
