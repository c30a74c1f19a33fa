//! LPIPS, learned perceptual image patch similarity (Zhang et al., 2018), version 0.1: the distance of two images in the
//! features of a network that was trained to classify, weighted by how much each channel matters to people.
//!
//! Trunks carry torchvision's names (VGG16, AlexNet, SqueezeNet 1.1), heads those of the published files. The trunk's
//! classifier is no part of the distance; SqueezeNet's can be kept ([`SqueezeNet`]).

mod layer;
mod trunk;

pub use layer::{Fire, TrunkLayer};
pub use trunk::{Net, SqueezeNet, Trunk};

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use thiserror::Error;

/// Subtracted from pixels in [−1, 1] and divided by, per channel: ImageNet's means and deviations as the reference has
/// them.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];
/// Added to the norm of a pixel's channels.
const EPSILON: f32 = 1e-10;
/// Below every square that f32 can hold beside [`EPSILON`]: the root's gradient stays finite where all channels are 0.
const SMALLEST_SQUARE: f32 = 1e-30;

/// Images that cannot be compared.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum LpipsError {
    /// Another number of channels, or pairs of different shapes.
    #[error(
        "images of shapes {first:?} and {second:?}: expected [pairs, 3, height, width], the same for both"
    )]
    Shape {
        first: Vec<usize>,
        second: Vec<usize>,
    },
    /// Too small for the trunk's strides.
    #[error(
        "images of {height} × {width} pixels: {net} wants at least {smallest} × {smallest}, resize them first"
    )]
    Size {
        net: Net,
        height: usize,
        width: usize,
        smallest: usize,
    },
}

/// Trunk and heads.
#[derive(Module, Debug)]
pub struct Lpips<B: Backend> {
    pub trunk: Trunk<B>,
    pub heads: Heads<B>,
}

/// A weight per channel of each layer that is compared.
#[derive(Module, Debug)]
pub struct Heads<B: Backend> {
    pub lins: Vec<Head<B>>,
}

/// A 1×1 convolution to one channel, without bias.
#[derive(Module, Debug)]
pub struct Head<B: Backend> {
    pub weight: Param<Tensor<B, 4>>,
}

/// How far apart the images of each pair are.
#[derive(Debug, Clone)]
pub struct PerceptualDistance<B: Backend> {
    /// The sum over layers, `[pairs]`; 0 for equal images.
    pub total: Tensor<B, 1>,
    /// `[pairs, layers]`
    pub layers: Tensor<B, 2>,
}

impl Net {
    /// A network with a random trunk and heads that weigh all channels alike.
    pub fn init<B: Backend>(self, device: &B::Device) -> Lpips<B> {
        Lpips {
            trunk: Trunk::new(self, device),
            heads: Heads::new(self, device),
        }
    }
}

impl<B: Backend> Heads<B> {
    fn new(net: Net, device: &B::Device) -> Self {
        let head = |channels: &usize| Head {
            weight: Param::from_tensor(Tensor::full(
                [1, *channels, 1, 1],
                1.0 / *channels as f64,
                device,
            )),
        };
        Self {
            lins: net.channels().iter().map(head).collect(),
        }
    }
}

impl<B: Backend> Lpips<B> {
    /// The distances of `first[i]` and `second[i]`.
    ///
    /// # Shapes
    /// Both `[pairs, 3, height, width]`, values in [−1, 1].
    ///
    /// # Errors
    /// Other shapes, or images smaller than [`Net::smallest_side`].
    pub fn forward(
        &self,
        first: Tensor<B, 4>,
        second: Tensor<B, 4>,
    ) -> Result<PerceptualDistance<B>, LpipsError> {
        let [pairs, channels, height, width] = first.dims();
        if channels != 3 || first.dims() != second.dims() {
            return Err(LpipsError::Shape {
                first: first.dims().to_vec(),
                second: second.dims().to_vec(),
            });
        }
        let net = self.trunk.net();
        let smallest = net.smallest_side();
        if height.min(width) < smallest {
            return Err(LpipsError::Size {
                net,
                height,
                width,
                smallest,
            });
        }
        // One pass for both: the trunk treats every image alike.
        let images = scaled(Tensor::cat(vec![first, second], 0));
        let features = self.trunk.features(images);
        let layers: Vec<Tensor<B, 2>> = features
            .into_iter()
            .zip(&self.heads.lins)
            .map(|(features, head)| head.distance(features, pairs))
            .collect();
        let layers = Tensor::cat(layers, 1);
        Ok(PerceptualDistance {
            total: layers.clone().sum_dim(1).squeeze_dim(1),
            layers,
        })
    }
}

impl<B: Backend> Head<B> {
    /// Features of the first images and then of the second, `[2 · pairs, channels, height, width]` → `[pairs, 1]`.
    fn distance(&self, features: Tensor<B, 4>, pairs: usize) -> Tensor<B, 2> {
        let features = unit_channels(features);
        let first = features.clone().narrow(0, 0, pairs);
        let second = features.narrow(0, pairs, pairs);
        let apart = (first - second).powi_scalar(2);
        // The mean over places and the weighted sum over channels commute; this order multiplies least.
        let per_channel = apart.mean_dim(3).mean_dim(2);
        (per_channel * self.weight.val())
            .sum_dim(1)
            .reshape([pairs, 1])
    }
}

fn scaled<B: Backend>(images: Tensor<B, 4>) -> Tensor<B, 4> {
    let device = images.device();
    let per_channel = |values: [f32; 3]| {
        Tensor::<B, 1>::from_floats(values, &device)
            .cast(images.dtype())
            .reshape([1, 3, 1, 1])
    };
    (images.clone() - per_channel(SHIFT)) / per_channel(SCALE)
}

/// Channels of every place divided by their norm.
fn unit_channels<B: Backend>(features: Tensor<B, 4>) -> Tensor<B, 4> {
    let squares = features.clone().powi_scalar(2).sum_dim(1);
    let norm = squares.clamp_min(SMALLEST_SQUARE).sqrt();
    features / norm.add_scalar(EPSILON)
}
