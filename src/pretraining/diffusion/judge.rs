//! What a network is worth on the way.

use std::path::Path;

use burn::tensor::backend::Backend;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::error::PretrainingError;
use super::super::pixels::write_grid;
use super::super::trainer::scalar;
use super::super::vae::noise;
use super::batch::{Batch, spread_timesteps, steps_tensor, weights};
use super::cache::Cache;
use super::{DiffusionPretrainingConfig, PromptedImages};
use crate::generation::generator::Generator;
use crate::networks::diffusion::{AutoencoderKl, UNet2DConditionModel};
use crate::networks::scheduler::NoiseSchedule;

/// Held-out loss and pictures, with the same noise every time.
pub(super) struct Judge<'a, D> {
    pub(super) config: &'a DiffusionPretrainingConfig,
    pub(super) schedule: &'a NoiseSchedule,
    pub(super) device: &'a D,
}

/// Images that an evaluation looks at.
const EVALUATED: usize = 128;

impl<D> Judge<'_, D> {
    pub(super) fn loss<B: Backend<Device = D>>(
        &self,
        network: &UNet2DConditionModel<B>,
        cache: &Cache,
    ) -> f64 {
        let images: Vec<usize> = (0..cache.num_images.min(EVALUATED)).collect();
        let mut random = ChaCha8Rng::seed_from_u64(self.config.seed ^ 0xe7a1);
        let timesteps = spread_timesteps(
            images.len(),
            1.0,
            0..self.schedule.num_train_timesteps(),
            &mut random,
        );
        let mut sum = 0.0;
        for (images, timesteps) in images.chunks(64).zip(timesteps.chunks(64)) {
            let batch = Batch {
                images: images.to_vec(),
                prompts: cache.captions(images),
                timesteps: timesteps.to_vec(),
                weights: weights(timesteps, self.schedule, self.config.gamma),
                num_judged: 0,
                random: random.clone(),
            };
            let (noised, target, weight) = batch.tensors::<B>(cache, self.schedule, self.device);
            let context = cache.contexts::<B>(&batch.prompts, self.device);
            let timestep = steps_tensor::<B>(timesteps, self.device);
            let predicted = network.forward(noised, timestep, context);
            let error = ((predicted - target).powi_scalar(2) * weight).mean();
            sum += f64::from(scalar(error)) * images.len() as f64;
        }
        sum / images.len() as f64
    }

    pub(super) fn draw<B: Backend<Device = D>>(
        &self,
        network: &UNet2DConditionModel<B>,
        vae: &AutoencoderKl<B>,
        data: &PromptedImages,
        cache: &Cache,
        path: &Path,
    ) -> Result<(), PretrainingError> {
        let count = self.config.num_samples.min(data.images.len());
        if count == 0 {
            return Ok(());
        }
        // Spread over the set, which is sorted by glyph and style.
        let shown: Vec<usize> = (0..count).map(|i| i * data.images.len() / count).collect();
        let generator = Generator::new(network.clone(), vae.clone(), self.config.scheduler.clone());
        let [channels, height, width] = cache.latent_shape;
        let mut random = ChaCha8Rng::seed_from_u64(self.config.seed ^ 0x5a3b);
        let latents = noise::<B>([count, channels, height, width], &mut random, self.device);
        let drawn = generator.generate(
            cache.contexts::<B>(&cache.captions(&shown), self.device),
            cache.contexts::<B>(&[0], self.device),
            latents,
            &|index| {
                let mut random = ChaCha8Rng::seed_from_u64(self.config.seed ^ 0x5a3b);
                random.set_stream(index as u64 + 1);
                noise::<B>([count, channels, height, width], &mut random, self.device)
            },
            &self.config.sampling,
        )?;
        write_grid(path, &[data.images.batch::<B>(&shown, self.device), drawn])
    }
}
