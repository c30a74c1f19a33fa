//! InceptionV3 as FID was published with it (Heusel et al., 2017): the features of a classifier of 1,008 classes, in the
//! layout of `pytorch-fid`, whose pooling differs from torchvision's in three places.
// Fields carry the checkpoint's names.
#![allow(non_snake_case)]

mod blocks;
mod layer;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData, backend::Backend};

use blocks::Pooling;
pub use blocks::{BlockA, BlockB, BlockC, BlockD, BlockE};
pub use layer::{BasicConv, FrozenNorm};
use layer::{Window, largest_pool};

/// Values of a feature.
pub const WIDTH: usize = 2048;
/// Sides of the pictures that the network was trained on.
const SIDE: usize = 299;

/// The network without its classifier.
#[derive(Module, Debug)]
pub struct InceptionV3<B: Backend> {
    pub Conv2d_1a_3x3: BasicConv<B>,
    pub Conv2d_2a_3x3: BasicConv<B>,
    pub Conv2d_2b_3x3: BasicConv<B>,
    pub Conv2d_3b_1x1: BasicConv<B>,
    pub Conv2d_4a_3x3: BasicConv<B>,
    pub Mixed_5b: BlockA<B>,
    pub Mixed_5c: BlockA<B>,
    pub Mixed_5d: BlockA<B>,
    pub Mixed_6a: BlockB<B>,
    pub Mixed_6b: BlockC<B>,
    pub Mixed_6c: BlockC<B>,
    pub Mixed_6d: BlockC<B>,
    pub Mixed_6e: BlockC<B>,
    pub Mixed_7a: BlockD<B>,
    pub Mixed_7b: BlockE<B>,
    pub Mixed_7c: BlockE<B>,
}

impl<B: Backend> InceptionV3<B> {
    /// With arbitrary weights, to be loaded.
    // Out of line, as are the blocks' own: in the caller's frame its parts would stand a second time, too much for a thread of 2 MiB.
    #[inline(never)]
    pub fn new(device: &B::Device) -> Self {
        let conv = |channels, window| BasicConv::new(channels, window, device);
        Self {
            Conv2d_1a_3x3: conv([3, 32], Window::halving(3)),
            Conv2d_2a_3x3: conv([32, 32], Window::inside(3)),
            Conv2d_2b_3x3: conv([32, 64], Window::same(3)),
            Conv2d_3b_1x1: conv([64, 80], Window::same(1)),
            Conv2d_4a_3x3: conv([80, 192], Window::inside(3)),
            Mixed_5b: BlockA::new(192, 32, device),
            Mixed_5c: BlockA::new(256, 64, device),
            Mixed_5d: BlockA::new(288, 64, device),
            Mixed_6a: BlockB::new(288, device),
            Mixed_6b: BlockC::new(128, device),
            Mixed_6c: BlockC::new(160, device),
            Mixed_6d: BlockC::new(160, device),
            Mixed_6e: BlockC::new(192, device),
            Mixed_7a: BlockD::new(device),
            Mixed_7b: BlockE::new(1280, device),
            Mixed_7c: BlockE::new(2048, device),
        }
    }

    /// The feature of each picture, `[batch, 3, height, width]` in [−1, 1] → `[batch, 2048]`. Pictures are brought to
    /// 299 × 299 first.
    pub fn features(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        self.features_at_size(resized(images))
    }

    /// The same of pictures as they are, at least 75 pixels each way.
    pub fn features_at_size(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let states = self.Conv2d_1a_3x3.forward(images);
        let states = self.Conv2d_2a_3x3.forward(states);
        let states = largest_pool(self.Conv2d_2b_3x3.forward(states), 2, 0);
        let states = self.Conv2d_3b_1x1.forward(states);
        let states = largest_pool(self.Conv2d_4a_3x3.forward(states), 2, 0);
        let blocks = [&self.Mixed_5b, &self.Mixed_5c, &self.Mixed_5d];
        let states = blocks
            .iter()
            .fold(states, |states, block| block.forward(states));
        let states = self.Mixed_6a.forward(states);
        let blocks = [
            &self.Mixed_6b,
            &self.Mixed_6c,
            &self.Mixed_6d,
            &self.Mixed_6e,
        ];
        let states = blocks
            .iter()
            .fold(states, |states, block| block.forward(states));
        let states = self.Mixed_7a.forward(states);
        let states = self.Mixed_7b.forward(states, Pooling::Mean);
        let states = self.Mixed_7c.forward(states, Pooling::Largest);
        let [batch, ..] = states.dims();
        states.mean_dim(3).mean_dim(2).reshape([batch, WIDTH])
    }
}

/// Bilinear, corners not aligned, without smoothing: as `pytorch-fid` does it. Two products with sparse matrices.
fn resized<B: Backend>(images: Tensor<B, 4>) -> Tensor<B, 4> {
    let [batch, channels, height, width] = images.dims();
    if (height, width) == (SIDE, SIDE) {
        return images;
    }
    let device = images.device();
    let matrix = |from: usize| {
        let data = TensorData::new(interpolation(from, SIDE), [1, SIDE, from]);
        Tensor::<B, 3>::from_data(data, &device)
    };
    let rows = matrix(height).expand([batch * channels, SIDE, height]);
    let columns = matrix(width).expand([batch * channels, SIDE, width]);
    let images = images.reshape([batch * channels, height, width]);
    let images = rows.matmul(images).matmul(columns.swap_dims(1, 2));
    images.reshape([batch, channels, SIDE, SIDE])
}

/// The weights of `from` places in each of `to`, row after row.
fn interpolation(from: usize, to: usize) -> Vec<f32> {
    let mut weights = vec![0.0; from * to];
    for place in 0..to {
        let centre = (place as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let centre = centre.clamp(0.0, (from - 1) as f64);
        let below = centre.floor() as usize;
        let share = centre - below as f64;
        weights[place * from + below] += (1.0 - share) as f32;
        weights[place * from + (below + 1).min(from - 1)] += share as f32;
    }
    weights
}
