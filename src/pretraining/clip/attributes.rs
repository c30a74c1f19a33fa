//! Linear heads that name glyph, group and style from a place in the joint space; used in training only.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, backend::Backend};

/// Lengthens the normalised embeddings, so that the heads' weights need not grow far.
const LENGTH: f64 = 10.0;

/// One head per attribute, shared by texts and pictures.
#[derive(Module, Debug)]
pub(super) struct Attributes<B: Backend> {
    glyph: Linear<B>,
    group: Linear<B>,
    style: Linear<B>,
}

/// The right answers of a batch, one-hot; a row of zeros asks nothing.
pub(super) struct Answers<B: Backend> {
    /// `[batch, glyphs]`.
    pub glyph: Tensor<B, 2>,
    /// `[batch, groups]`.
    pub group: Tensor<B, 2>,
    /// `[batch, styles]`.
    pub style: Tensor<B, 2>,
}

impl<B: Backend> Attributes<B> {
    pub(super) fn new(
        width: usize,
        num_glyphs: usize,
        num_groups: usize,
        num_styles: usize,
        device: &B::Device,
    ) -> Self {
        let head = |count| {
            LinearConfig::new(width, count)
                .with_bias(false)
                .init(device)
        };
        Self {
            glyph: head(num_glyphs),
            group: head(num_groups),
            style: head(num_styles),
        }
    }

    /// Numbers of glyphs, groups and styles.
    pub(super) fn num_classes(&self) -> [usize; 3] {
        [&self.glyph, &self.group, &self.style].map(|head| head.weight.dims()[1])
    }

    /// Sum of the three mean cross-entropies for normalised embeddings `[batch, joint width]`.
    pub(super) fn loss(&self, embeds: Tensor<B, 2>, answers: Answers<B>) -> Tensor<B, 1> {
        let embeds = embeds.mul_scalar(LENGTH);
        let entropy = |head: &Linear<B>, answers: Tensor<B, 2>| {
            let asked = answers.clone().sum().clamp_min(1.0);
            (answers * log_softmax(head.forward(embeds.clone()), 1))
                .sum()
                .neg()
                / asked
        };
        entropy(&self.glyph, answers.glyph)
            + entropy(&self.group, answers.group)
            + entropy(&self.style, answers.style)
    }
}
