//! How a diffusion time step enters a network.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Tensor, TensorData, activation::silu, backend::Backend};

/// Sinusoidal features of time steps: frequencies `10000^(-i / (half - frequency_shift))`.
///
/// `timesteps` `[batch]` (may be fractional) → `[batch, width]`, `width` even. `cosine_first` is the hub's
/// `flip_sin_to_cos`. Source: diffusers `get_timestep_embedding`.
pub fn sinusoidal<B: Backend>(
    timesteps: Tensor<B, 1>,
    width: usize,
    cosine_first: bool,
    frequency_shift: f64,
) -> Tensor<B, 2> {
    let half = width / 2;
    let frequencies = (0..half)
        .map(|i| (-(10_000f64.ln()) * i as f64 / (half as f64 - frequency_shift)).exp() as f32)
        .collect::<Vec<f32>>();
    let frequencies =
        Tensor::<B, 2>::from_data(TensorData::new(frequencies, [1, half]), &timesteps.device());
    let angles = timesteps.unsqueeze_dim::<2>(1).mul(frequencies);
    let (sine, cosine) = (angles.clone().sin(), angles.cos());
    if cosine_first {
        Tensor::cat(vec![cosine, sine], 1)
    } else {
        Tensor::cat(vec![sine, cosine], 1)
    }
}

/// Two linear layers with a SiLU between them. Source: diffusers `TimestepEmbedding`.
#[derive(Module, Debug)]
pub struct TimestepEmbedding<B: Backend> {
    pub linear_1: Linear<B>,
    pub linear_2: Linear<B>,
}

impl<B: Backend> TimestepEmbedding<B> {
    /// A new embedding of `width` features into `embedding_width`.
    pub fn new(width: usize, embedding_width: usize, device: &B::Device) -> Self {
        Self {
            linear_1: LinearConfig::new(width, embedding_width).init(device),
            linear_2: LinearConfig::new(embedding_width, embedding_width).init(device),
        }
    }

    /// `[batch, width]` → `[batch, embedding width]`.
    pub fn forward(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        self.linear_2.forward(silu(self.linear_1.forward(features)))
    }
}
