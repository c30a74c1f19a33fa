//! Exploration: noisy copies of the conditioning.

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor, TensorData};

use super::config::Exploration;
use crate::generation::noise::NoiseKey;

/// `ε_1..ε_n` of one sample, `[n, Q, d]`.
pub fn exploration_noise<B: Backend>(
    key: NoiseKey<'_>,
    exploration: Exploration,
    num_noises: usize,
    [tokens, width]: [usize; 2],
    device: &Device<B>,
) -> Tensor<B, 3> {
    let drawn = match exploration {
        Exploration::Independent => tokens,
        Exploration::SharedByTokens => 1,
    };
    let values = (0..num_noises)
        .flat_map(|noise| NoiseKey { noise, ..key }.normal(drawn * width))
        .collect();
    let noise = TensorData::new::<f32, _>(values, [num_noises, drawn, width]);
    let noise: Tensor<B, 3> = Tensor::from_data(noise, device);
    noise.expand([num_noises, tokens, width])
}
