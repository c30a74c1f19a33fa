//! Names the glyph of a sticker, or its style (ours; no part of the method): the judge of drawings whose right answer is known.
//!
//! A residual network (He et al., 2016) with group norms in place of batch norms, so that no picture depends on the others of its
//! batch.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::silu;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::nn::convolution::convolve;
use crate::nn::norm::{group_norm, group_norm_silu};

/// `model_type` of a recogniser's `config.json`.
pub const MODEL_TYPE: &str = "ragar-recogniser";

/// What a recogniser names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aspect {
    /// Which thing is drawn.
    Glyph,
    /// How it is drawn.
    Style,
}

impl Aspect {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Glyph => "glyph",
            Self::Style => "style",
        }
    }
}

/// Its shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecogniserShape {
    /// Channels after the first convolution.
    pub stem_width: usize,
    /// Side of its kernel, odd.
    pub stem_kernel: usize,
    /// Its stride.
    pub stem_stride: usize,
    /// Channels of the blocks, each of which halves height and width.
    pub widths: Vec<usize>,
    /// Groups of every norm.
    pub norm_num_groups: usize,
}

/// A recogniser's `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecogniserConfig {
    /// [`MODEL_TYPE`].
    pub model_type: String,
    /// Side of a picture, in pixels.
    pub image_size: usize,
    /// The network.
    pub shape: RecogniserShape,
    /// What it names.
    pub aspect: Aspect,
    /// The names, in the order of their scores: glyphs by code points, or styles.
    pub names: Vec<String>,
}

/// A configuration that makes no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct RecogniserConfigError {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

fn convolution<B: Backend>(
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    device: &B::Device,
) -> Conv2d<B> {
    let around = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(around, around, around, around))
        .with_bias(false)
        .init(device)
}

impl RecogniserConfig {
    /// # Errors
    /// When it makes no network; the error names the field.
    pub fn validate(&self) -> Result<(), RecogniserConfigError> {
        if self.names.is_empty() {
            return Err(RecogniserConfigError {
                field: "names",
                reason: "empty: there is nothing to name".into(),
            });
        }
        self.shape.validate(self.image_size)
    }

    /// Random weights.
    ///
    /// # Errors
    /// See [`validate`](Self::validate).
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<Recogniser<B>, RecogniserConfigError> {
        self.validate()?;
        Ok(self.shape.init(3, self.names.len(), device))
    }
}

impl RecogniserShape {
    /// Does it make a network for maps of `side`?
    ///
    /// # Errors
    /// When not; the error names the field.
    pub fn validate(&self, side: usize) -> Result<(), RecogniserConfigError> {
        let fail = |field, reason: String| Err(RecogniserConfigError { field, reason });
        let groups = self.norm_num_groups;
        let mut widths = self.widths.iter().chain([&self.stem_width]);
        if self.widths.is_empty() {
            return fail("shape.widths", "empty: at least one block is needed".into());
        }
        if groups == 0 || widths.any(|width| *width == 0 || width % groups != 0) {
            return fail(
                "shape.norm_num_groups",
                format!(
                    "stem_width = {} and widths = {:?} must be multiples of {groups}",
                    self.stem_width, self.widths
                ),
            );
        }
        if self.stem_kernel.is_multiple_of(2) {
            return fail(
                "shape.stem_kernel",
                format!("{} must be odd", self.stem_kernel),
            );
        }
        if self.stem_stride == 0 || side < self.stem_stride << self.widths.len() {
            return fail(
                "shape.stem_stride",
                format!(
                    "{} and {} blocks make nothing of {side} pixels",
                    self.stem_stride,
                    self.widths.len(),
                ),
            );
        }
        Ok(())
    }

    /// Random weights for maps of `channels`, to be told apart into `classes`. The shape must be one that [`validate`](Self::validate) lets pass.
    pub fn init<B: Backend>(
        &self,
        channels: usize,
        classes: usize,
        device: &B::Device,
    ) -> Recogniser<B> {
        let norm = |width: usize| GroupNormConfig::new(self.norm_num_groups, width).init(device);
        let inputs = [&self.stem_width].into_iter().chain(&self.widths);
        let blocks = inputs.zip(&self.widths).map(|(&from, &to)| ResidualBlock {
            conv1: convolution([from, to], 3, 2, device),
            norm1: norm(to),
            conv2: convolution([to, to], 3, 1, device),
            norm2: norm(to),
            shortcut: convolution([from, to], 1, 2, device),
        });
        let last = self.widths.last().copied().unwrap_or(self.stem_width);
        let first = [channels, self.stem_width];
        Recogniser {
            stem: convolution(first, self.stem_kernel, self.stem_stride, device),
            stem_norm: norm(self.stem_width),
            blocks: blocks.collect(),
            head: LinearConfig::new(last, classes).init(device),
        }
    }
}

/// `silu(norm2(conv2(silu(norm1(conv1 x)))) + shortcut x)`, at half the height and width.
#[derive(Module, Debug)]
pub struct ResidualBlock<B: Backend> {
    /// 3×3, stride 2.
    pub conv1: Conv2d<B>,
    /// After it.
    pub norm1: GroupNorm<B>,
    /// 3×3.
    pub conv2: Conv2d<B>,
    /// After it.
    pub norm2: GroupNorm<B>,
    /// 1×1, stride 2.
    pub shortcut: Conv2d<B>,
}

impl<B: Backend> ResidualBlock<B> {
    /// `[batch, in, height, width]` → `[batch, out, height / 2, width / 2]`, rounded up.
    pub fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        let shortcut = convolve(&self.shortcut, input.clone());
        let hidden = group_norm_silu(&self.norm1, convolve(&self.conv1, input));
        silu(group_norm(&self.norm2, convolve(&self.conv2, hidden)) + shortcut)
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Recogniser<B: Backend> {
    /// The first convolution.
    pub stem: Conv2d<B>,
    /// After it.
    pub stem_norm: GroupNorm<B>,
    /// What halves the map.
    pub blocks: Vec<ResidualBlock<B>>,
    /// From the mean over the last map to scores.
    pub head: Linear<B>,
}

impl<B: Backend> Recogniser<B> {
    /// Scores before a softmax: pixels `[batch, channels, height, width]`, of pictures three channels in [−1, 1], → `[batch, classes]`.
    pub fn forward(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let stem = group_norm_silu(&self.stem_norm, convolve(&self.stem, pixels));
        let map = self
            .blocks
            .iter()
            .fold(stem, |map, block| block.forward(map));
        let mean = map.flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2);
        self.head.forward(mean)
    }

    /// The places of the `count` largest scores of each picture, the largest first, the lower place first in a tie.
    pub fn name(&self, pixels: Tensor<B, 4>, count: usize) -> Vec<Vec<usize>> {
        let scores = self.forward(pixels);
        let [_, classes] = scores.dims();
        let values: Vec<f32> = scores.into_data().iter::<f32>().collect();
        let rows = values.chunks(classes).map(|row| {
            let mut order: Vec<usize> = (0..classes).collect();
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
            order.truncate(count);
            order
        });
        rows.collect()
    }
}
