//! Linear heads that ask for glyph and style; used in training only.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::lessons::{Answer, Lesson};
use crate::networks::blip2::Blip2ForConditionalGeneration;
use crate::pretraining::initial::seeded;
use crate::pretraining::recogniser::smoothed;

/// A captioner and the heads that question it.
#[derive(Module, Debug)]
pub(super) struct Student<B: Backend> {
    pub captioner: Blip2ForConditionalGeneration<B>,
    patches: Heads<B>,
    queries: Heads<B>,
}

/// One head per question.
#[derive(Module, Debug)]
struct Heads<B: Backend> {
    glyph: Linear<B>,
    style: Linear<B>,
}

impl<B: Backend> Heads<B> {
    fn new(width: usize, [glyphs, styles]: [usize; 2], seed: u64, device: &Device<B>) -> Self {
        let head = |count| LinearConfig::new(width, count).init(device);
        let heads = Self {
            glyph: head(glyphs),
            style: head(styles),
        };
        seeded(heads, seed, |_| false)
    }

    /// Mean cross-entropies, added, `[1]`, of what `lessons` ask of `states` `[batch, width]`.
    fn loss(&self, states: &Tensor<B, 2>, lessons: &[Lesson], smoothing: f64) -> Tensor<B, 1> {
        let asked = |head: &Linear<B>, answer: fn(&Answer) -> Option<usize>| {
            let (places, answers): (Vec<i32>, Vec<usize>) = lessons
                .iter()
                .enumerate()
                .filter_map(|(place, lesson)| Some((place as i32, answer(&lesson.answer)?)))
                .unzip();
            let count = places.len();
            let places = TensorData::new(places, [count]);
            let places = Tensor::<B, 1, Int>::from_data(places, &states.device());
            let rows = states.clone().select(0, places);
            smoothed(head.forward(rows), &answers, smoothing)
        };
        asked(&self.glyph, Answer::glyph) + asked(&self.style, Answer::style)
    }
}

impl<B: Backend> Student<B> {
    /// `captioner`, whose tower and decoder are as wide as `widths` say, with fresh heads for `num_answers` glyphs and styles.
    pub(super) fn new(
        captioner: Blip2ForConditionalGeneration<B>,
        widths: [usize; 2],
        num_answers: [usize; 2],
        seed: u64,
        device: &Device<B>,
    ) -> Self {
        let [tower, decoder] = widths;
        Self {
            captioner,
            patches: Heads::new(tower, num_answers, seed, device),
            queries: Heads::new(decoder, num_answers, seed + 1, device),
        }
    }

    /// What the heads miss, `[1]`: at the mean of the tower's `patches` `[batch, 1 + patches, width]` (the class token
    /// apart) and of the projected `queries` `[batch, queries, width]`.
    pub(super) fn loss(
        &self,
        patches: Tensor<B, 3>,
        queries: Tensor<B, 3>,
        lessons: &[Lesson],
        smoothing: f64,
    ) -> Tensor<B, 1> {
        let num_tokens = patches.dims()[1];
        let seen = patches.narrow(1, 1, num_tokens - 1).mean_dim(1);
        let told = queries.mean_dim(1);
        self.patches.loss(&seen.squeeze_dim(1), lessons, smoothing)
            + self.queries.loss(&told.squeeze_dim(1), lessons, smoothing)
    }
}
