//! The layers that the blocks are made of.

use burn::module::{Module, Param};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AvgPool2dConfig, MaxPool2dConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, backend::Backend};

/// Added to variances.
const EPSILON: f64 = 1e-3;

/// Batch normalisation outside training: a scale and a shift per channel.
#[derive(Module, Debug)]
pub struct FrozenNorm<B: Backend> {
    /// `[channels]`, as the others.
    pub weight: Param<Tensor<B, 1>>,
    pub bias: Param<Tensor<B, 1>>,
    pub running_mean: Param<Tensor<B, 1>>,
    pub running_var: Param<Tensor<B, 1>>,
}

impl<B: Backend> FrozenNorm<B> {
    fn new(channels: usize, device: &B::Device) -> Self {
        let ones = || Param::from_tensor(Tensor::ones([channels], device));
        let zeros = || Param::from_tensor(Tensor::zeros([channels], device));
        Self {
            weight: ones(),
            bias: zeros(),
            running_mean: zeros(),
            running_var: ones(),
        }
    }

    fn forward(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        let scale = self.weight.val() / self.running_var.val().add_scalar(EPSILON).sqrt();
        let shift = self.bias.val() - self.running_mean.val() * scale.clone();
        let channels = scale.dims()[0];
        states * scale.reshape([1, channels, 1, 1]) + shift.reshape([1, channels, 1, 1])
    }
}

/// A convolution without bias, its norm, and ReLU.
#[derive(Module, Debug)]
pub struct BasicConv<B: Backend> {
    pub conv: Conv2d<B>,
    pub bn: FrozenNorm<B>,
}

/// Kernel, stride and padding of a convolution; height first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub kernel: [usize; 2],
    pub stride: usize,
    pub padding: [usize; 2],
}

impl Window {
    /// Square, every place, as large as what goes in.
    pub const fn same(side: usize) -> Self {
        Self {
            kernel: [side, side],
            stride: 1,
            padding: [side / 2, side / 2],
        }
    }

    /// Square, every second place, only where it lies wholly inside.
    pub const fn halving(side: usize) -> Self {
        Self {
            kernel: [side, side],
            stride: 2,
            padding: [0, 0],
        }
    }

    /// Square, every place where it lies wholly inside.
    pub const fn inside(side: usize) -> Self {
        Self {
            kernel: [side, side],
            stride: 1,
            padding: [0, 0],
        }
    }

    /// One row of `length`.
    pub const fn row(length: usize) -> Self {
        Self {
            kernel: [1, length],
            stride: 1,
            padding: [0, length / 2],
        }
    }

    /// One column of `length`.
    pub const fn column(length: usize) -> Self {
        Self {
            kernel: [length, 1],
            stride: 1,
            padding: [length / 2, 0],
        }
    }
}

impl<B: Backend> BasicConv<B> {
    pub(super) fn new(channels: [usize; 2], window: Window, device: &B::Device) -> Self {
        let [above, beside] = window.padding;
        Self {
            conv: Conv2dConfig::new(channels, window.kernel)
                .with_stride([window.stride, window.stride])
                .with_padding(PaddingConfig2d::Explicit(above, beside, above, beside))
                .with_bias(false)
                .init(device),
            bn: FrozenNorm::new(channels[1], device),
        }
    }

    pub(super) fn forward(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        relu(self.bn.forward(self.conv.forward(states)))
    }
}

/// Mean of every 3 × 3 window; padding does not count, as in the network that FID was published with.
pub(super) fn mean_pool<B: Backend>(states: Tensor<B, 4>) -> Tensor<B, 4> {
    AvgPool2dConfig::new([3, 3])
        .with_strides([1, 1])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_count_include_pad(false)
        .init()
        .forward(states)
}

/// Largest of every 3 × 3 window, `stride` places apart.
pub(super) fn largest_pool<B: Backend>(
    states: Tensor<B, 4>,
    stride: usize,
    padding: usize,
) -> Tensor<B, 4> {
    MaxPool2dConfig::new([3, 3])
        .with_strides([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(
            padding, padding, padding, padding,
        ))
        .init()
        .forward(states)
}
