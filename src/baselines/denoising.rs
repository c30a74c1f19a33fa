//! The generator's own training loss, through the frozen denoising network: what PMG and Textual Inversion learn from.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use crate::data::pixels::{fitted, to_batch};
use crate::networks::diffusion::{AutoencoderKl, UNet2DConditionModel};
use crate::networks::scheduler::{NoiseSchedule, PredictionType, SchedulerConfig, SchedulerError};

/// Pictures encoded at once.
const ENCODED_AT_ONCE: usize = 32;

/// The frozen denoising network where a graph is recorded.
#[derive(Debug, Clone)]
pub struct Denoiser<B: Backend> {
    unet: UNet2DConditionModel<B>,
    schedule: NoiseSchedule,
    prediction: PredictionType,
    device: Device<B>,
}

/// Scaled latents of pictures, on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    values: Vec<Vec<f32>>,
    shape: [usize; 3],
}

impl Latents {
    /// The means of the frozen autoencoder, each picture brought to `side` × `side` first.
    pub fn encode<B: Backend>(
        vae: &AutoencoderKl<B>,
        pictures: &[RgbImage],
        side: usize,
        device: &Device<B>,
    ) -> Self {
        let mut latents = Self {
            values: Vec::with_capacity(pictures.len()),
            shape: [0; 3],
        };
        for chunk in pictures.chunks(ENCODED_AT_ONCE) {
            let sized = chunk
                .iter()
                .map(|picture| fitted(picture.clone(), side as u32));
            let sized: Vec<RgbImage> = sized.collect();
            let batch = to_batch(&sized.iter().collect::<Vec<_>>(), device);
            let scaled = vae.scale(vae.encode(batch).mean);
            let [_, channels, height, width] = scaled.dims();
            latents.shape = [channels, height, width];
            let values: Vec<f32> = scaled.into_data().iter::<f32>().collect();
            let rows = values.chunks(channels * height * width);
            latents.values.extend(rows.map(<[f32]>::to_vec));
        }
        latents
    }

    /// Channels, height and width of each.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn batch<B: Backend>(&self, places: &[usize], device: &Device<B>) -> Tensor<B, 4> {
        let [channels, height, width] = self.shape;
        let values: Vec<f32> = places
            .iter()
            .flat_map(|place| self.values[*place].iter().copied())
            .collect();
        let shape = [places.len(), channels, height, width];
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

/// A time step and a noise for each row of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Noising {
    timesteps: Vec<usize>,
    noise: Vec<Vec<f32>>,
}

impl Noising {
    /// No rows yet.
    pub fn new() -> Self {
        Self {
            timesteps: Vec::new(),
            noise: Vec::new(),
        }
    }

    /// Draws for one row from its own stream.
    pub fn draw(&mut self, random: &mut ChaCha8Rng, steps: usize, shape: [usize; 3]) {
        self.timesteps.push(random.random_range(0..steps));
        let count = shape.iter().product::<usize>();
        let noise = (0..count).map(|_| StandardNormal.sample(random)).collect();
        self.noise.push(noise);
    }
}

impl Default for Noising {
    fn default() -> Self {
        Self::new()
    }
}

/// A stream of random numbers of its own for a purpose, a user and a step: the same whoever else trains beside.
pub fn stream(seed: u64, purpose: &str, user: &str, step: usize) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    for text in [purpose, user] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update((step as u64).to_le_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

impl<B: AutodiffBackend> Denoiser<B> {
    /// A denoiser of `unet`, none of whose parameters trains.
    ///
    /// # Errors
    /// When the noise schedule is refused.
    pub fn new(
        unet: UNet2DConditionModel<B>,
        scheduler: &SchedulerConfig,
        device: &Device<B>,
    ) -> Result<Self, SchedulerError> {
        use burn::module::Module as _;

        Ok(Self {
            unet: unet.no_grad(),
            schedule: NoiseSchedule::new(scheduler)?,
            prediction: scheduler.prediction_type,
            device: device.clone(),
        })
    }

    /// Training time steps of the schedule.
    pub fn num_timesteps(&self) -> usize {
        self.schedule.num_train_timesteps()
    }

    /// Where the graph is recorded.
    pub fn device(&self) -> &Device<B> {
        &self.device
    }

    /// `‖ε − ε̂‖²` of each row, averaged over its values, `[rows]`: the noise that the network's output implies, whether
    /// it predicts noise, velocity or sample.
    ///
    /// # Shapes
    /// `conditioning` `[rows, tokens, width]`; `places` says each row's latent.
    pub fn losses(
        &self,
        latents: &Latents,
        places: &[usize],
        noising: &Noising,
        conditioning: Tensor<B, 3>,
    ) -> Tensor<B, 1> {
        let rows = places.len();
        let clean = latents.batch::<B>(places, &self.device);
        let values: Vec<f32> = noising.noise.concat();
        let noise = TensorData::new(values, clean.dims());
        let noise = Tensor::<B, 4>::from_data(noise, &self.device);
        let noised = self
            .schedule
            .add_noise(clean.clone(), noise.clone(), &noising.timesteps);
        let target = self.schedule.target(clean, noise, &noising.timesteps);
        let steps: Vec<f32> = noising.timesteps.iter().map(|step| *step as f32).collect();
        let steps = Tensor::from_data(TensorData::new(steps, [rows]), &self.device);
        let predicted = self.unet.forward(noised, steps, conditioning);
        let error = (predicted - target).powi_scalar(2);
        let error = error.reshape([rows as i32, -1]).mean_dim(1).reshape([rows]);
        let weights: Vec<f32> = noising
            .timesteps
            .iter()
            .map(|step| self.noise_error(*step) as f32)
            .collect();
        error * Tensor::from_data(TensorData::new(weights, [rows]), &self.device)
    }

    /// What an error of one in the network's output is worth as an error of the noise.
    fn noise_error(&self, timestep: usize) -> f64 {
        noise_error(self.prediction, self.schedule.alpha_cumprod(timestep))
    }
}

/// From `x = √ᾱ s + √(1 − ᾱ) ε`: with velocity `ε = √ᾱ v + √(1 − ᾱ) x`, with the sample `ε = (x − √ᾱ s) / √(1 − ᾱ)`.
fn noise_error(prediction: PredictionType, alpha: f64) -> f64 {
    match prediction {
        PredictionType::Epsilon => 1.0,
        PredictionType::VPrediction => alpha,
        PredictionType::Sample => alpha / (1.0 - alpha),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_is_that_of_the_implied_noise() {
        let (alpha, sample, noise) = (0.3f64, 0.7, -1.1);
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let noised = signal * sample + spread * noise;
        let wrong = 0.01;
        let velocity = signal * noise - spread * sample + wrong;
        let implied = signal * velocity + spread * noised;
        let expected = (implied - noise).powi(2) / (wrong * wrong);
        assert!((noise_error(PredictionType::VPrediction, alpha) - expected).abs() < 1e-9);
        let implied = (noised - signal * (sample + wrong)) / spread;
        let expected = (implied - noise).powi(2) / (wrong * wrong);
        assert!((noise_error(PredictionType::Sample, alpha) - expected).abs() < 1e-9);
        assert_eq!(noise_error(PredictionType::Epsilon, alpha), 1.0);
    }

    #[test]
    fn streams_differ_by_every_part_of_their_name() {
        let first = |seed, purpose, user, step| stream(seed, purpose, user, step).random::<u64>();
        let own = first(1, "a", "b", 2);
        assert_eq!(own, first(1, "a", "b", 2));
        for other in [
            first(2, "a", "b", 2),
            first(1, "ab", "", 2),
            first(1, "a", "c", 2),
            first(1, "a", "b", 3),
        ] {
            assert_ne!(own, other);
        }
    }
}
