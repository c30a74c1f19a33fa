//! The layers that trunks are made of.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{PaddingConfig2d, Relu};
use burn::tensor::{Tensor, backend::Backend};

/// One layer. Those without parameters stand in the list, too: their places count in torchvision's names.
// A dozen per network: their size does not matter, and a box is no module.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum TrunkLayer<B: Backend> {
    Convolution(Conv2d<B>),
    Fire(Fire<B>),
    Relu(Relu),
    Pool(MaxPool2d),
    /// Nothing to do outside training (dropout), or done elsewhere (the mean at the end).
    Nothing(Nothing),
}

/// A layer that leaves its input as it is.
#[derive(Module, Clone, Debug, Default)]
pub struct Nothing {}

/// SqueezeNet's module: few channels, and from them two convolutions side by side.
#[derive(Module, Debug)]
pub struct Fire<B: Backend> {
    pub squeeze: Conv2d<B>,
    pub expand1x1: Conv2d<B>,
    pub expand3x3: Conv2d<B>,
}

impl<B: Backend> TrunkLayer<B> {
    pub(super) fn convolution(
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
        device: &B::Device,
    ) -> Self {
        Self::Convolution(convolution(channels, kernel, stride, padding, device))
    }

    pub(super) fn fire(from: usize, squeezed: usize, expanded: usize, device: &B::Device) -> Self {
        Self::Fire(Fire {
            squeeze: convolution([from, squeezed], 1, 1, 0, device),
            expand1x1: convolution([squeezed, expanded], 1, 1, 0, device),
            expand3x3: convolution([squeezed, expanded], 3, 1, 1, device),
        })
    }

    /// Largest of every window of `kernel` × `kernel`, two pixels apart; `ceil_mode` keeps a last, partial window.
    pub(super) fn pool(kernel: usize, ceil_mode: bool) -> Self {
        let config = MaxPool2dConfig::new([kernel, kernel])
            .with_strides([2, 2])
            .with_ceil_mode(ceil_mode);
        Self::Pool(config.init())
    }

    pub(super) fn forward(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        match self {
            Self::Convolution(layer) => layer.forward(states),
            Self::Fire(layer) => layer.forward(states),
            Self::Relu(layer) => layer.forward(states),
            Self::Pool(layer) => layer.forward(states),
            Self::Nothing(_) => states,
        }
    }
}

impl<B: Backend> Fire<B> {
    fn forward(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        let relu = Relu::new();
        let squeezed = relu.forward(self.squeeze.forward(states));
        let narrow = relu.forward(self.expand1x1.forward(squeezed.clone()));
        let wide = relu.forward(self.expand3x3.forward(squeezed));
        Tensor::cat(vec![narrow, wide], 1)
    }
}

fn convolution<B: Backend>(
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
    device: &B::Device,
) -> Conv2d<B> {
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(
            padding, padding, padding, padding,
        ))
        .init(device)
}
