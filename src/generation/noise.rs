//! Noise from a counter-based generator: every draw is keyed by what it is for, so an image is the same at any
//! batch size, on any backend and after any resume.

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use super::sample::Sample;

/// What a draw is for.
#[derive(Debug, Clone, Copy)]
pub struct NoiseKey<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// Stream name: `latent`, `sampling` or `exploration`.
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

/// The initial latent of one sample, shared by all its images, `[1, channels, height, width]`.
///
/// Common random numbers: differences of reward then come from the conditioning alone (our reading).
pub fn initial_latent<B: Backend>(
    seed: u64,
    sample: &Sample,
    shape: [usize; 3],
    device: &Device<B>,
) -> Tensor<B, 4> {
    latent_noise(seed, "latent", sample, 0, shape, device)
}

/// What a sampler puts on that sample after its step `index`, `[1, channels, height, width]`; shared as the initial
/// latent is.
pub fn sampling_noise<B: Backend>(
    seed: u64,
    sample: &Sample,
    index: usize,
    shape: [usize; 3],
    device: &Device<B>,
) -> Tensor<B, 4> {
    latent_noise(seed, "sampling", sample, index, shape, device)
}

fn latent_noise<B: Backend>(
    seed: u64,
    stream: &str,
    sample: &Sample,
    noise: usize,
    [channels, height, width]: [usize; 3],
    device: &Device<B>,
) -> Tensor<B, 4> {
    let key = NoiseKey {
        seed,
        stream,
        user: &sample.user,
        item: &sample.reference_id,
        noise,
        step: 0,
    };
    let values = key.normal(channels * height * width);
    Tensor::from_data(
        TensorData::new(values, [1, channels, height, width]),
        device,
    )
}
