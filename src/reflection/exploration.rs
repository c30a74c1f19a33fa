//! Exploration: noisy copies of the conditioning, drawn from a counter-based generator.
//!
//! Every draw is keyed by what it is for, so an image is the same at any batch size, on any backend
//! and after any resume.

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

/// What a draw is for.
#[derive(Debug, Clone, Copy)]
pub struct NoiseKey<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// Stream name: `latent` or `exploration`.
    pub stream: &'a str,
    /// User of the sample.
    pub user: &'a str,
    /// Reference item of the sample.
    pub item: &'a str,
    /// Number of the noise within the sample.
    pub noise: usize,
    /// Training step; 0 where a draw must not change with it.
    pub step: usize,
}

impl NoiseKey<'_> {
    /// `count` independent standard normal values.
    pub fn normal(&self, count: usize) -> Vec<f32> {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        for text in [self.stream, self.user, self.item] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update((self.noise as u64).to_le_bytes());
        hash.update((self.step as u64).to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(hash.finalize().into());
        (0..count)
            .map(|_| StandardNormal.sample(&mut generator))
            .collect()
    }
}

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

/// The initial latent of one sample, shared by all its images, `[1, channels, height, width]`.
///
/// Common random numbers: differences of reward then come from the conditioning alone (our reading).
pub fn initial_latent<B: Backend>(
    key: NoiseKey<'_>,
    [channels, height, width]: [usize; 3],
    device: &Device<B>,
) -> Tensor<B, 4> {
    let values = key.normal(channels * height * width);
    Tensor::from_data(
        TensorData::new(values, [1, channels, height, width]),
        device,
    )
}
