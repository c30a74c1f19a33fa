//! The classifiers whose features are compared.

use std::fmt;

use burn::module::Module;
use burn::nn::Relu;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use super::layer::{Nothing, TrunkLayer};

/// Which classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Net {
    /// VGG16: what papers report when they say no more.
    #[serde(alias = "vgg16")]
    Vgg,
    /// AlexNet: the fastest, and the reference's default.
    #[serde(alias = "alexnet")]
    Alex,
    /// SqueezeNet 1.1: the smallest.
    #[serde(alias = "squeezenet")]
    Squeeze,
}

impl fmt::Display for Net {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Vgg => "vgg",
            Self::Alex => "alex",
            Self::Squeeze => "squeeze",
        })
    }
}

impl Net {
    /// Channels of the layers that are compared.
    pub fn channels(self) -> &'static [usize] {
        match self {
            Self::Vgg => &[64, 128, 256, 512, 512],
            Self::Alex => &[64, 192, 384, 256, 256],
            Self::Squeeze => &[64, 128, 256, 384, 384, 512, 512],
        }
    }

    /// Places in torchvision's `features` after which features are taken.
    fn taps(self) -> &'static [usize] {
        match self {
            Self::Vgg => &[3, 8, 15, 22, 29],
            Self::Alex => &[1, 4, 7, 9, 11],
            Self::Squeeze => &[1, 4, 7, 9, 10, 11, 12],
        }
    }

    /// Pixels that an image needs each way, so that every pooling window lies inside what it pools.
    pub fn smallest_side(self) -> usize {
        match self {
            Self::Vgg => 16,
            Self::Alex => 31,
            Self::Squeeze => 25,
        }
    }
}

/// The layers up to the last one compared.
#[derive(Module, Debug)]
pub struct Trunk<B: Backend> {
    pub features: Vec<TrunkLayer<B>>,
    #[module(skip)]
    net: Net,
}

impl<B: Backend> Trunk<B> {
    pub(super) fn new(net: Net, device: &B::Device) -> Self {
        let features = match net {
            Net::Vgg => vgg16(device),
            Net::Alex => alexnet(device),
            Net::Squeeze => squeezenet(device),
        };
        Self { features, net }
    }

    /// Which classifier this is.
    pub fn net(&self) -> Net {
        self.net
    }

    /// The features that are compared, first layer first; images as the classifier wants them, `[batch, 3, height, width]`.
    pub fn features(&self, images: Tensor<B, 4>) -> Vec<Tensor<B, 4>> {
        let mut states = images;
        let mut taken = Vec::new();
        for (place, layer) in self.features.iter().enumerate() {
            states = layer.forward(states);
            if self.net.taps().contains(&place) {
                taken.push(states.clone());
            }
        }
        taken
    }
}

fn relu<B: Backend>() -> TrunkLayer<B> {
    TrunkLayer::Relu(Relu::new())
}

fn vgg16<B: Backend>(device: &B::Device) -> Vec<TrunkLayer<B>> {
    let mut layers = Vec::new();
    let mut channels = 3;
    for (block, (width, depth)) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
        .into_iter()
        .enumerate()
    {
        if block > 0 {
            layers.push(TrunkLayer::pool(2, false));
        }
        for _ in 0..depth {
            layers.push(TrunkLayer::convolution([channels, width], 3, 1, 1, device));
            layers.push(relu());
            channels = width;
        }
    }
    layers
}

fn alexnet<B: Backend>(device: &B::Device) -> Vec<TrunkLayer<B>> {
    vec![
        TrunkLayer::convolution([3, 64], 11, 4, 2, device),
        relu(),
        TrunkLayer::pool(3, false),
        TrunkLayer::convolution([64, 192], 5, 1, 2, device),
        relu(),
        TrunkLayer::pool(3, false),
        TrunkLayer::convolution([192, 384], 3, 1, 1, device),
        relu(),
        TrunkLayer::convolution([384, 256], 3, 1, 1, device),
        relu(),
        TrunkLayer::convolution([256, 256], 3, 1, 1, device),
        relu(),
    ]
}

fn squeezenet<B: Backend>(device: &B::Device) -> Vec<TrunkLayer<B>> {
    vec![
        TrunkLayer::convolution([3, 64], 3, 2, 0, device),
        relu(),
        TrunkLayer::pool(3, true),
        TrunkLayer::fire(64, 16, 64, device),
        TrunkLayer::fire(128, 16, 64, device),
        TrunkLayer::pool(3, true),
        TrunkLayer::fire(128, 32, 128, device),
        TrunkLayer::fire(256, 32, 128, device),
        TrunkLayer::pool(3, true),
        TrunkLayer::fire(256, 48, 192, device),
        TrunkLayer::fire(384, 48, 192, device),
        TrunkLayer::fire(384, 64, 256, device),
        TrunkLayer::fire(512, 64, 256, device),
    ]
}

/// SqueezeNet 1.1 with its classifier (torchvision's `squeezenet1_1`).
#[derive(Module, Debug)]
pub struct SqueezeNet<B: Backend> {
    pub features: Vec<TrunkLayer<B>>,
    pub classifier: Vec<TrunkLayer<B>>,
}

impl<B: Backend> SqueezeNet<B> {
    /// A classifier with random weights.
    pub fn new(num_classes: usize, device: &B::Device) -> Self {
        Self {
            features: squeezenet(device),
            classifier: vec![
                TrunkLayer::Nothing(Nothing {}),
                TrunkLayer::convolution([512, num_classes], 1, 1, 0, device),
                relu(),
            ],
        }
    }

    /// A score per class, `[batch, classes]`, of images `[batch, 3, height, width]` normalised as the checkpoint wants.
    pub fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let layers = self.features.iter().chain(&self.classifier);
        let states = layers.fold(images, |states, layer| layer.forward(states));
        states.mean_dim(3).mean_dim(2).flatten::<2>(1, 3)
    }
}
