//! Residual blocks and the change of resolution. Source: diffusers `ResnetBlock2D`, `Downsample2D`, `Upsample2D`.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Tensor, backend::Backend};

use crate::nn::convolution::{convolve, shift_channels};
use crate::nn::norm::group_norm_silu;

/// A convolution that keeps height and width.
pub(crate) fn convolution<B: Backend>(
    channels: [usize; 2],
    kernel: usize,
    device: &B::Device,
) -> Conv2d<B> {
    let padding = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_padding(PaddingConfig2d::Explicit(
            padding, padding, padding, padding,
        ))
        .init(device)
}

pub(crate) fn group_norm<B: Backend>(
    groups: usize,
    channels: usize,
    epsilon: f64,
    device: &B::Device,
) -> GroupNorm<B> {
    GroupNormConfig::new(groups, channels)
        .with_epsilon(epsilon)
        .init(device)
}

/// Two normalised convolutions round a shortcut, optionally shifted by the time embedding.
#[derive(Module, Debug)]
pub struct ResnetBlock2D<B: Backend> {
    pub norm1: GroupNorm<B>,
    pub conv1: Conv2d<B>,
    pub time_emb_proj: Option<Linear<B>>,
    pub norm2: GroupNorm<B>,
    pub conv2: Conv2d<B>,
    pub conv_shortcut: Option<Conv2d<B>>,
}

/// How a residual block normalises.
#[derive(Debug, Clone, Copy)]
pub struct NormOptions {
    /// Groups of every group norm.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f64,
}

impl<B: Backend> ResnetBlock2D<B> {
    /// A block from `channels[0]` to `channels[1]`; the shortcut is a 1×1 convolution where they differ.
    pub fn new(
        channels: [usize; 2],
        time_width: Option<usize>,
        norm: NormOptions,
        device: &B::Device,
    ) -> Self {
        let [input, output] = channels;
        Self {
            norm1: group_norm(norm.groups, input, norm.epsilon, device),
            conv1: convolution([input, output], 3, device),
            time_emb_proj: time_width.map(|width| LinearConfig::new(width, output).init(device)),
            norm2: group_norm(norm.groups, output, norm.epsilon, device),
            conv2: convolution([output, output], 3, device),
            conv_shortcut: (input != output).then(|| convolution([input, output], 1, device)),
        }
    }

    /// What this block is told of time steps: `time`, the SiLU of their embeddings `[steps, time width]`, as shifts of its
    /// channels `[steps, out]`.
    pub(super) fn shift(&self, time: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        let projection = self.time_emb_proj.as_ref()?;
        Some(projection.forward(time.clone()))
    }

    /// `[batch, in, height, width]` → `[batch, out, height, width]`; `shift`, `[batch, out]`, is added between the two
    /// convolutions.
    pub fn forward(&self, input: Tensor<B, 4>, shift: Option<Tensor<B, 2>>) -> Tensor<B, 4> {
        let mut hidden = convolve(&self.conv1, group_norm_silu(&self.norm1, input.clone()));
        if let Some(shift) = shift {
            hidden = shift_channels(hidden, shift);
        }
        let hidden = convolve(&self.conv2, group_norm_silu(&self.norm2, hidden));
        let shortcut = match &self.conv_shortcut {
            Some(convolution) => convolve(convolution, input),
            None => input,
        };
        // The sum is written where the block's own result is, which nothing else holds.
        hidden + shortcut
    }
}

/// Halves height and width by a strided convolution.
#[derive(Module, Debug)]
pub struct Downsample2D<B: Backend> {
    pub conv: Conv2d<B>,
}

impl<B: Backend> Downsample2D<B> {
    /// The denoising network pads all sides by `padding`; the autoencoder passes 0 and pads right and bottom only.
    pub fn new(channels: usize, padding: usize, device: &B::Device) -> Self {
        let padding = match padding {
            0 => PaddingConfig2d::Valid,
            p => PaddingConfig2d::Explicit(p, p, p, p),
        };
        Self {
            conv: Conv2dConfig::new([channels, channels], [3, 3])
                .with_stride([2, 2])
                .with_padding(padding)
                .init(device),
        }
    }

    /// `[batch, channels, height, width]` → `[batch, channels, ⌈height / 2⌉, ⌈width / 2⌉]`.
    pub fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        match self.conv.padding {
            PaddingConfig2d::Valid => self.conv.forward(padded(input)),
            _ => self.conv.forward(input),
        }
    }
}

/// Zeros to the right and at the bottom. Not by the convolution's own padding: one that differs by side is made with
/// f32 zeros on flex, which half-precision values do not mix with.
fn padded<B: Backend>(input: Tensor<B, 4>) -> Tensor<B, 4> {
    let [batch, channels, height, width] = input.dims();
    let (device, dtype) = (input.device(), input.dtype());
    let zeros = |shape: [usize; 4]| Tensor::<B, 4>::zeros(shape, &device).cast(dtype);
    let wide = Tensor::cat(vec![input, zeros([batch, channels, height, 1])], 3);
    Tensor::cat(vec![wide, zeros([batch, channels, 1, width + 1])], 2)
}

/// Nearest-neighbour enlargement, then a convolution.
#[derive(Module, Debug)]
pub struct Upsample2D<B: Backend> {
    pub conv: Conv2d<B>,
}

impl<B: Backend> Upsample2D<B> {
    /// A new block of `channels`.
    pub fn new(channels: usize, device: &B::Device) -> Self {
        Self {
            conv: convolution([channels, channels], 3, device),
        }
    }

    /// Enlarges to `size` (`[height, width]`), twice the input's where it is `None`.
    pub fn forward(&self, input: Tensor<B, 4>, size: Option<[usize; 2]>) -> Tensor<B, 4> {
        let [_, _, height, width] = input.dims();
        let size = size.unwrap_or([2 * height, 2 * width]);
        let options = InterpolateOptions::new(InterpolateMode::Nearest);
        convolve(&self.conv, interpolate(input, size, options))
    }
}
