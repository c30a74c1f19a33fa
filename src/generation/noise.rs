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

/// The noise that one image is drawn from.
///
/// By default all images of a sample share theirs (common random numbers: differences of reward then come from the
/// conditioning alone; our reading).
#[derive(Debug, Clone, Copy)]
pub struct Latent<'a> {
    sample: &'a Sample,
    /// 0 where it is shared.
    number: usize,
    step: usize,
}

impl<'a> Latent<'a> {
    /// The noise that all images of `sample` share, in training and after.
    pub fn shared(sample: &'a Sample) -> Self {
        Self {
            sample,
            number: 0,
            step: 0,
        }
    }

    /// A noise of its own for image `number` of `sample` in training step `step`.
    pub fn own(sample: &'a Sample, number: usize, step: usize) -> Self {
        Self {
            sample,
            number: number + 1,
            step,
        }
    }

    /// Whose it is.
    pub fn sample(&self) -> &'a Sample {
        self.sample
    }

    /// What denoising starts from, `[1, channels, height, width]`.
    pub fn initial<B: Backend>(
        &self,
        seed: u64,
        shape: [usize; 3],
        device: &Device<B>,
    ) -> Tensor<B, 4> {
        self.draw(seed, "latent", self.number, shape, device)
    }

    /// What a sampler puts on after its step `index`, `[1, channels, height, width]`.
    pub fn sampling<B: Backend>(
        &self,
        seed: u64,
        index: usize,
        shape: [usize; 3],
        device: &Device<B>,
    ) -> Tensor<B, 4> {
        // Streams of images beside the shared one lie far beyond any number of denoising steps.
        self.draw(
            seed,
            "sampling",
            index + self.number * 1_000_000,
            shape,
            device,
        )
    }

    fn draw<B: Backend>(
        &self,
        seed: u64,
        stream: &str,
        noise: usize,
        [channels, height, width]: [usize; 3],
        device: &Device<B>,
    ) -> Tensor<B, 4> {
        let key = NoiseKey {
            seed,
            stream,
            user: &self.sample.user,
            item: &self.sample.reference_id,
            noise,
            step: self.step,
        };
        let values = key.normal(channels * height * width);
        Tensor::from_data(
            TensorData::new(values, [1, channels, height, width]),
            device,
        )
    }
}
