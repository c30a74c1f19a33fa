//! Exploration: noisy copies of the conditioning.

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor, TensorData};

use crate::generation::noise::NoiseKey;

/// `ε_1..ε_n` of one sample, `[n, Q, d]`.
pub fn exploration_noise<B: Backend>(
    key: NoiseKey<'_>,
    num_noises: usize,
    [tokens, width]: [usize; 2],
    device: &Device<B>,
) -> Tensor<B, 3> {
    let values = (0..num_noises)
        .flat_map(|noise| NoiseKey { noise, ..key }.normal(tokens * width))
        .collect();
    Tensor::from_data(
        TensorData::new::<f32, _>(values, [num_noises, tokens, width]),
        device,
    )
}
