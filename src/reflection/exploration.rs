//! Exploration: noisy copies of the conditioning, in all directions or in those that retrieval shows.

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor, TensorData};

use super::config::Exploration;
use crate::generation::conditioning::TextEncoder;
use crate::generation::noise::NoiseKey;
use crate::generation::sample::Sample;

/// `ε_1..ε_n` of one sample, `[n, Q, d]`.
pub fn exploration_noise<B: Backend>(
    key: NoiseKey<'_>,
    exploration: Exploration,
    num_noises: usize,
    [tokens, width]: [usize; 2],
    device: &Device<B>,
) -> Tensor<B, 3> {
    let drawn = match exploration {
        Exploration::SharedByTokens => 1,
        _ => tokens,
    };
    let values = (0..num_noises)
        .flat_map(|noise| NoiseKey { noise, ..key }.normal(drawn * width))
        .collect();
    let noise = TensorData::new::<f32, _>(values, [num_noises, drawn, width]);
    let noise: Tensor<B, 3> = Tensor::from_data(noise, device);
    noise.expand([num_noises, tokens, width])
}

/// Ways that retrieval shows, `[directions, Q, d]`, each of mean square one: from the reference's caption to each retrieved
/// item's, and from `E_gen`, `[1, Q, d]`, to the reference's caption. Ways of no length stay nothing.
pub fn retrieved_directions<B: Backend>(
    sample: &Sample,
    general: Tensor<B, 3>,
    text: &dyn TextEncoder<B>,
) -> Tensor<B, 3> {
    let own = text.encode(&[sample.reference_caption.as_str()]).states;
    let mut ways = vec![own.clone() - general];
    if !sample.retrieved_captions.is_empty() {
        let captions: Vec<&str> = sample
            .retrieved_captions
            .iter()
            .map(String::as_str)
            .collect();
        ways.push(text.encode(&captions).states - own);
    }
    let ways = Tensor::cat(ways, 0);
    let squares = ways.clone().powi_scalar(2).mean_dim(2).mean_dim(1);
    ways / squares.sqrt().clamp_min(1e-6)
}

/// `ε_1..ε_n` of one sample in the span of `directions`, `[n, Q, d]`: standard normal shares of each, scaled so that the
/// expected square of a number is about one, as that of independent noise.
pub fn noise_along<B: Backend>(
    key: NoiseKey<'_>,
    num_noises: usize,
    directions: Tensor<B, 3>,
) -> Tensor<B, 3> {
    let [count, tokens, width] = directions.dims();
    let values = (0..num_noises)
        .flat_map(|noise| NoiseKey { noise, ..key }.normal(count))
        .collect();
    let shares = TensorData::new::<f32, _>(values, [num_noises, count]);
    let shares: Tensor<B, 2> = Tensor::from_data(shares, &directions.device());
    let noise = shares.matmul(directions.reshape([count, tokens * width]));
    let scale = (count as f64).sqrt();
    noise.div_scalar(scale).reshape([num_noises, tokens, width])
}
