//! What a step shows.

use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor, TensorData};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::vae::noise;
use super::DiffusionPretrainingConfig;
use super::cache::Cache;
use crate::networks::scheduler::NoiseSchedule;

pub(super) fn steps_tensor<B: Backend>(timesteps: &[usize], device: &Device<B>) -> Tensor<B, 1> {
    let values: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    Tensor::from_data(TensorData::new(values, [timesteps.len()]), device)
}

/// What one step shows: images, a prompt and a time step for each, and a stream of noise.
pub(super) struct Batch {
    /// Places of their latents: in some form.
    pub(super) images: Vec<usize>,
    pub(super) prompts: Vec<usize>,
    pub(super) timesteps: Vec<usize>,
    pub(super) weights: Vec<f32>,
    /// Rows, the first ones, whose clean sample is judged.
    pub(super) num_judged: usize,
    pub(super) random: ChaCha8Rng,
}

impl Batch {
    pub(super) fn draw(
        config: &DiffusionPretrainingConfig,
        cache: &Cache,
        schedule: &NoiseSchedule,
        step: usize,
    ) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        random.set_stream(step as u64 + 1);
        let total = schedule.num_train_timesteps();
        let little = &config.little_noise;
        let num_little = (little.share * config.batch_size as f64).round() as usize;
        let judged = &config.adversarial;
        let num_judged = (judged.share * config.batch_size as f64).round() as usize;
        let num_other = config.batch_size - num_little - num_judged;
        let first = if num_little == 0 { 0 } else { little.below };
        let mut images = cache.draw(num_judged, config.extra_share, step, config.seed + 5);
        images.extend(cache.draw(num_other, config.extra_share, step, config.seed));
        images.extend(cache.draw(num_little, little.extra_share, step, config.seed + 2));
        let prompts = images
            .iter()
            .enumerate()
            .map(|(row, &image)| {
                let prompts = &cache.prompts[image];
                // What is judged has to be asked for.
                if row >= num_judged && random.random_bool(config.unconditional_fraction) {
                    0
                } else if prompts.len() == 1 || random.random_bool(config.caption_fraction) {
                    prompts[0]
                } else {
                    prompts[random.random_range(1..prompts.len())]
                }
            })
            .collect();
        let power = config.timestep_power;
        let mut timesteps =
            spread_timesteps(num_judged, judged.timestep_power, 0..total, &mut random);
        timesteps.extend(spread_timesteps(
            num_other,
            power,
            first..total,
            &mut random,
        ));
        timesteps.extend(spread_timesteps(
            num_little,
            power,
            0..little.below,
            &mut random,
        ));
        if config.views > 1 {
            let changed = if num_little == 0 {
                0
            } else {
                num_judged + num_other
            };
            for image in &mut images[changed..] {
                *image += cache.num_images * random.random_range(0..config.views);
            }
        }
        Self {
            images,
            prompts,
            weights: weights(&timesteps, schedule, config.gamma),
            timesteps,
            num_judged,
            random,
        }
    }

    /// Noised latents, what to predict, and the weight of each row, `[batch, 1, 1, 1]`.
    pub(super) fn tensors<B: Backend>(
        &self,
        cache: &Cache,
        schedule: &NoiseSchedule,
        device: &Device<B>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>, Tensor<B, 4>) {
        let latents = cache.latents::<B>(&self.images, device);
        let noise = noise::<B>(latents.dims(), &mut self.random.clone(), device);
        let weight = TensorData::new(self.weights.clone(), [self.images.len(), 1, 1, 1]);
        (
            schedule.add_noise(latents.clone(), noise.clone(), &self.timesteps),
            schedule.target(latents, noise, &self.timesteps),
            Tensor::from_data(weight, device),
        )
    }
}

/// A time step of `range` for each of `count` rows, spread over it (evenly, for a power of 1) and shuffled: less luck in
/// the loss than `count` independent draws.
pub(super) fn spread_timesteps(
    count: usize,
    power: f64,
    range: Range<usize>,
    random: &mut ChaCha8Rng,
) -> Vec<usize> {
    let mut timesteps: Vec<usize> = (0..count)
        .map(|i| {
            let place = ((i as f64 + random.random::<f64>()) / count as f64).powf(power);
            (range.start + (place * range.len() as f64) as usize).min(range.end - 1)
        })
        .collect();
    timesteps.shuffle(random);
    timesteps
}

pub(super) fn weights(timesteps: &[usize], schedule: &NoiseSchedule, gamma: f64) -> Vec<f32> {
    timesteps
        .iter()
        .map(|&t| schedule.loss_weight(t, gamma) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::LittleNoise;
    use super::*;

    #[test]
    fn a_power_above_one_prefers_little_noise() {
        let quarters = |power| {
            let mut random = ChaCha8Rng::seed_from_u64(1);
            let mut counts = [0; 4];
            for timestep in spread_timesteps(400, power, 0..1000, &mut random) {
                counts[timestep * 4 / 1000] += 1;
            }
            counts
        };
        assert_eq!(quarters(1.0), [100; 4]);
        // u² < 1/4 for u < 1/2, u² < 1/2 for u < 0.707, u² < 3/4 for u < 0.866.
        assert_eq!(quarters(2.0), [200, 83, 64, 53]);
    }

    /// Pictures without a size, that have two prompts each.
    fn pictures(num_own: usize, num_extra: usize) -> Cache {
        Cache {
            latents: Vec::new(),
            num_images: num_own + num_extra,
            latent_shape: [1, 1, 1],
            states: Vec::new(),
            state_shape: [1, 1],
            prompts: vec![vec![1, 2]; num_own + num_extra],
            num_extra,
        }
    }

    #[test]
    fn steps_of_little_noise_learn_from_pictures_of_their_own() {
        let config = DiffusionPretrainingConfig {
            batch_size: 8,
            extra_share: 0.5,
            views: 2,
            little_noise: LittleNoise {
                below: 300,
                share: 0.5,
                extra_share: 0.75,
            },
            ..DiffusionPretrainingConfig::default()
        };
        let schedule = NoiseSchedule::new(&config.scheduler).unwrap();
        // Places 0..20 are own, 20..30 of further glyphs, from 30 on all of them in another form.
        let cache = pictures(20, 10);
        let mut in_another_form = 0;
        for step in 0..20 {
            let batch = Batch::draw(&config, &cache, &schedule, step);
            let rows = || batch.images.iter().zip(&batch.timesteps);
            let further = |little| {
                rows()
                    .filter(|(image, timestep)| (**timestep < 300) == little && **image % 30 >= 20)
                    .count()
            };
            assert_eq!(rows().filter(|(_, timestep)| **timestep < 300).count(), 4);
            assert_eq!((further(true), further(false)), (3, 2));
            assert!(rows().all(|(image, timestep)| *image < 30 || *timestep < 300));
            in_another_form += batch.images.iter().filter(|image| **image >= 30).count();
        }
        assert!((20..60).contains(&in_another_form), "{in_another_form}");
    }

    #[test]
    fn without_a_share_all_steps_are_alike() {
        let config = DiffusionPretrainingConfig {
            batch_size: 100,
            ..DiffusionPretrainingConfig::default()
        };
        let schedule = NoiseSchedule::new(&config.scheduler).unwrap();
        let cache = pictures(200, 0);
        let batch = Batch::draw(&config, &cache, &schedule, 0);
        let below = batch.timesteps.iter().filter(|timestep| **timestep < 500);
        assert_eq!((batch.images.len(), below.count()), (100, 50));
    }
}
