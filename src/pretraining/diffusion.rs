//! Training of the denoising network on cached latents and cached text states.
//!
//! Autoencoder and text encoder are frozen, so every image is encoded once and every distinct prompt once, before the
//! first step. An image has several prompts (its caption, keyword forms, forms without a style word); a step draws one.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Tensor, TensorData};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::PretrainingError;
use super::initial::seeded;
use super::pixels::{Augmentation, ImageSet, write_grid};
use super::trainer::{Evaluation, Trainer, TrainerConfig, num_parameters, scalar};
use super::vae::{draw, noise};
use crate::generation::generator::{GenerateOptions, Generator};
use crate::networks::diffusion::{AutoencoderKl, PerLevel, UNet2DConditionModel, UNetConfig};
use crate::networks::scheduler::{
    BetaSchedule, NoiseSchedule, PredictionType, SchedulerConfig, TimestepSpacing,
};
use crate::nn::activation::Activation;
use crate::optimisation::parameters::{Selection, collect, restore};
use crate::optimisation::{AdamWConfig, Decay, Interrupt, Progress, Schedule};

/// A run of denoising training. None of these values comes from the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiffusionPretrainingConfig {
    /// The network.
    pub network: UNetConfig,
    /// The noise schedule, saved with the pipeline.
    pub scheduler: SchedulerConfig,
    /// Steps, rates, intervals.
    pub trainer: TrainerConfig,
    /// Images a step.
    pub batch_size: usize,
    /// Part of each step that shows further glyphs, if there are any.
    pub extra_share: f64,
    /// How often an image is shown under its first prompt, the caption; else under one of the others.
    pub caption_fraction: f64,
    /// How often the prompt is empty, for classifier-free guidance.
    pub unconditional_fraction: f64,
    /// Largest weight of a time step, in units of the clean sample's error (min-SNR).
    pub gamma: f64,
    /// Time steps are drawn as `T · u^power`, u even in [0, 1): 1 draws all alike, above 1 those of little noise more often.
    pub timestep_power: f64,
    /// Forms in which an image is shown: 1 is the image alone, each further one is mirrored, moved and scaled at random, once.
    pub views: usize,
    /// How far those forms go.
    pub augmentation: Augmentation,
    /// How the held-out captions are drawn for `samples/`.
    pub sampling: GenerateOptions,
    /// How many of them.
    pub num_samples: usize,
    /// Seed of weights, order, prompts, time steps and noise.
    pub seed: u64,
}

impl Default for DiffusionPretrainingConfig {
    fn default() -> Self {
        Self {
            network: tiny_unet(),
            scheduler: tiny_scheduler(),
            trainer: TrainerConfig {
                steps: 10_000,
                schedule: Schedule {
                    learning_rate: 6e-4,
                    warmup_steps: 100,
                    decay: Decay::Cosine,
                    final_fraction: 0.02,
                },
                optimizer: AdamWConfig {
                    beta_2: 0.99,
                    weight_decay: 1e-2,
                    ..AdamWConfig::default()
                },
                average_decay: 0.999,
                ..TrainerConfig::default()
            },
            batch_size: 48,
            extra_share: 0.5,
            caption_fraction: 0.6,
            unconditional_fraction: 0.1,
            gamma: 5.0,
            timestep_power: 1.0,
            views: 1,
            augmentation: Augmentation::default(),
            sampling: GenerateOptions {
                num_steps: 20,
                guidance_scale: 3.0,
                ..GenerateOptions::default()
            },
            num_samples: 16,
            seed: 1,
        }
    }
}

impl DiffusionPretrainingConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// When a number makes no run; the message names the key.
    pub fn validate(&self) -> Result<(), PretrainingError> {
        let fail = |key, found: String, expected| {
            Err(PretrainingError::Setting {
                key,
                found,
                expected,
            })
        };
        let power = self.timestep_power;
        if !(power.is_finite() && power > 0.0) {
            return fail("timestep_power", power.to_string(), "positive");
        }
        if self.views == 0 {
            return fail("views", "0".into(), "at least 1, the image as it is");
        }
        Ok(())
    }
}

/// The tiny family's denoising network: attention from 8×8 cells down, most weights at 4×4.
pub fn tiny_unet() -> UNetConfig {
    let block = |kind: &str| kind.to_string();
    UNetConfig {
        class_name: "UNet2DConditionModel".into(),
        sample_size: Some(16),
        in_channels: 4,
        out_channels: 4,
        center_input_sample: false,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        down_block_types: vec![
            block("DownBlock2D"),
            block("CrossAttnDownBlock2D"),
            block("CrossAttnDownBlock2D"),
        ],
        mid_block_type: Some("UNetMidBlock2DCrossAttn".into()),
        up_block_types: vec![
            block("CrossAttnUpBlock2D"),
            block("CrossAttnUpBlock2D"),
            block("UpBlock2D"),
        ],
        block_out_channels: vec![64, 96, 112],
        layers_per_block: PerLevel::All(1),
        downsample_padding: 1,
        mid_block_scale_factor: 1.0,
        act_fn: Activation::Silu,
        norm_num_groups: 8,
        norm_eps: 1e-5,
        cross_attention_dim: 128,
        transformer_layers_per_block: PerLevel::All(1),
        attention_head_dim: PerLevel::All(4),
        num_attention_heads: None,
        use_linear_projection: false,
        only_cross_attention: serde_json::Value::Bool(false),
        dual_cross_attention: false,
        class_embed_type: None,
        addition_embed_type: None,
        encoder_hid_dim: None,
        resnet_time_scale_shift: "default".into(),
        time_embedding_type: "positional".into(),
        conv_in_kernel: 3,
        conv_out_kernel: 3,
        further: serde_json::Map::new(),
    }
}

/// Velocity prediction on a schedule whose last step is pure noise: stickers stand on white, and a schedule that lets
/// some of it through would leave the sampler, which starts from pure noise, a shade of grey (Lin et al., 2023).
pub fn tiny_scheduler() -> SchedulerConfig {
    SchedulerConfig {
        beta_start: 0.00085,
        beta_end: 0.012,
        beta_schedule: BetaSchedule::ScaledLinear,
        clip_sample: false,
        set_alpha_to_one: false,
        prediction_type: PredictionType::VPrediction,
        timestep_spacing: TimestepSpacing::Trailing,
        rescale_betas_zero_snr: true,
        ..SchedulerConfig::default()
    }
}

/// Images with the prompts under which each may be shown; the first is its caption.
#[derive(Debug, Clone)]
pub struct PromptedImages {
    pub images: ImageSet,
    pub prompts: Vec<Vec<String>>,
    /// How many of them, at the end, show further glyphs, which no experiment has.
    pub num_extra: usize,
}

impl PromptedImages {
    fn validate(&self, what: &str) -> Result<(), PretrainingError> {
        let (images, prompts) = (self.images.len(), self.prompts.len());
        if images <= self.num_extra || images != prompts || self.prompts.iter().any(Vec::is_empty) {
            return Err(PretrainingError::Data(format!(
                "{images} {what} images with {prompts} lists of prompts: every image needs a list, every list a caption"
            )));
        }
        Ok(())
    }
}

/// A frozen text encoder.
pub trait TextStates<B: Backend> {
    /// The states of `prompts`, `[prompts, tokens, width]`, the same number of tokens each time.
    fn text_states(&self, prompts: &[String]) -> Tensor<B, 3>;
}

impl<B: Backend, F: Fn(&[String]) -> Tensor<B, 3>> TextStates<B> for F {
    fn text_states(&self, prompts: &[String]) -> Tensor<B, 3> {
        self(prompts)
    }
}

/// What a training run is worth.
#[derive(Debug, Clone, Serialize)]
pub struct DiffusionReport {
    /// Steps taken.
    pub steps: usize,
    /// Pictures of further glyphs that were learned from.
    pub num_extra_pictures: usize,
    /// Parameters of the network.
    pub parameters: usize,
    /// Weighted squared error on held-out images under their captions, with fixed noise.
    pub held_out_loss: f64,
    /// The same on as many training images.
    pub training_loss: f64,
    /// Was the run stopped before its last step?
    pub interrupted: bool,
}

/// A trained denoising network (averaged weights) with its configurations.
#[derive(Debug)]
pub struct TrainedUNet<B: Backend> {
    pub network: UNet2DConditionModel<B>,
    pub config: UNetConfig,
    pub scheduler: SchedulerConfig,
    pub report: DiffusionReport,
}

/// Trains on `training`, from `initial` weights or random ones, reports on `held_out`; checkpoints, `metrics.jsonl` and `samples/` (held-out images above what
/// their captions give) go to `folder`. A run that finds checkpoints there goes on from the newest.
///
/// # Errors
/// When the configuration or the data do not fit, the loss is not finite, or the disk refuses.
#[allow(clippy::too_many_arguments)]
pub fn run<B: AutodiffBackend>(
    config: &DiffusionPretrainingConfig,
    training: &PromptedImages,
    held_out: &PromptedImages,
    initial: Option<&UNet2DConditionModel<B::InnerBackend>>,
    vae: &AutoencoderKl<B::InnerBackend>,
    text: &dyn TextStates<B::InnerBackend>,
    folder: &Path,
    device: &Device<B>,
    frozen: &Device<B>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<TrainedUNet<B::InnerBackend>, PretrainingError> {
    config.validate()?;
    training.validate("training")?;
    held_out.validate("held-out")?;
    let schedule = NoiseSchedule::new(&config.scheduler)?;
    progress.begin("latents and text states", 2);
    let mut training_cache = Cache::new(training, vae, text, frozen);
    training_cache.add_views(config, training, vae, frozen);
    progress.advance(1, "training images");
    let held_out_cache = Cache::new(held_out, vae, text, frozen);
    progress.end();

    let network = config.network.init::<B>(device)?;
    let network = seeded(network, config.seed, |path| {
        ["conv2.weight", "proj_out.weight", "conv_out.weight"]
            .iter()
            .any(|end| path.ends_with(end))
    });
    let network = match initial {
        Some(initial) => restore(network, &collect(initial, Selection::All), Selection::All)?,
        None => network,
    };
    let identity = json!({
        "network": config.network,
        "scheduler": config.scheduler,
        "seed": config.seed,
        "images": training.images.len(),
    });
    let trainer = Trainer::<B, _>::open(
        &config.trainer,
        &identity,
        network,
        folder,
        frozen,
        progress,
    )?;
    let judge = Judge {
        config,
        schedule: &schedule,
        device: frozen,
    };
    let lesson = |network: &UNet2DConditionModel<B>, step: usize| {
        let batch = Batch::draw(config, &training_cache, &schedule, step);
        let (noised, target, weight) = batch.tensors::<B>(&training_cache, &schedule, device);
        let context = training_cache.contexts::<B>(&batch.prompts, device);
        let timestep = steps_tensor::<B>(&batch.timesteps, device);
        let predicted = network.forward(noised, timestep, context);
        let loss = ((predicted - target).powi_scalar(2) * weight).mean();
        Ok((loss, Vec::new()))
    };
    let evaluate = |averaged: &UNet2DConditionModel<B::InnerBackend>, step: usize| {
        let loss = judge.loss(averaged, &held_out_cache);
        let training_loss = judge.loss(averaged, &training_cache);
        let path = folder.join(format!("samples/step-{step}.png"));
        judge.draw(averaged, vae, held_out, &held_out_cache, &path)?;
        Ok(Evaluation {
            metrics: json!({ "held_out_loss": loss, "training_loss": training_loss }),
            words: format!("held-out loss {loss:.4}, training {training_loss:.4}"),
        })
    };
    let outcome = trainer.run("denoising network", interrupt, lesson, evaluate)?;
    let network = outcome.network;
    let report = DiffusionReport {
        steps: outcome.steps,
        num_extra_pictures: training.num_extra,
        parameters: num_parameters(&network),
        held_out_loss: judge.loss(&network, &held_out_cache),
        training_loss: judge.loss(&network, &training_cache),
        interrupted: outcome.interrupted,
    };
    Ok(TrainedUNet {
        network,
        config: config.network.clone(),
        scheduler: config.scheduler.clone(),
        report,
    })
}

/// Images that are encoded at once.
const ENCODED: usize = 32;

/// Everything the frozen networks say about a data set, on the host.
struct Cache {
    /// Of the images as they are, then of all of them in each further form.
    latents: Vec<Vec<f32>>,
    num_images: usize,
    latent_shape: [usize; 3],
    states: Vec<Vec<f32>>,
    state_shape: [usize; 2],
    /// The prompts of each image, as places in `states`. The empty prompt is place 0.
    prompts: Vec<Vec<usize>>,
    num_extra: usize,
}

impl Cache {
    fn new<B: Backend>(
        data: &PromptedImages,
        vae: &AutoencoderKl<B>,
        text: &dyn TextStates<B>,
        device: &Device<B>,
    ) -> Self {
        let indices: Vec<usize> = (0..data.images.len()).collect();
        let mut latents = Vec::new();
        let mut latent_shape = [0; 3];
        for chunk in indices.chunks(ENCODED) {
            let mean = vae.encode(data.images.batch::<B>(chunk, device)).mean;
            let [_, channels, height, width] = mean.dims();
            latent_shape = [channels, height, width];
            latents.extend(rows(vae.scale(mean).into_data(), channels * height * width));
        }
        let mut distinct = vec![String::new()];
        let mut places: HashMap<&str, usize> = HashMap::from([("", 0)]);
        let prompts = data
            .prompts
            .iter()
            .map(|prompts| {
                prompts
                    .iter()
                    .map(|prompt| {
                        *places.entry(prompt.as_str()).or_insert_with(|| {
                            distinct.push(prompt.clone());
                            distinct.len() - 1
                        })
                    })
                    .collect()
            })
            .collect();
        let mut states = Vec::new();
        let mut state_shape = [0; 2];
        for chunk in distinct.chunks(64) {
            let encoded = text.text_states(chunk);
            let [_, tokens, width] = encoded.dims();
            state_shape = [tokens, width];
            states.extend(rows(encoded.into_data(), tokens * width));
        }
        Self {
            num_images: latents.len(),
            latents,
            latent_shape,
            states,
            state_shape,
            prompts,
            num_extra: data.num_extra,
        }
    }

    /// The images once more in each further form.
    fn add_views<B: Backend>(
        &mut self,
        config: &DiffusionPretrainingConfig,
        data: &PromptedImages,
        vae: &AutoencoderKl<B>,
        device: &Device<B>,
    ) {
        let indices: Vec<usize> = (0..data.images.len()).collect();
        let length = self.latent_shape.iter().product();
        for view in 1..config.views {
            let mut random = ChaCha8Rng::seed_from_u64(config.seed ^ 0x71e3);
            random.set_stream(view as u64);
            for chunk in indices.chunks(ENCODED) {
                let images =
                    data.images
                        .random_batch::<B>(chunk, &config.augmentation, &mut random, device);
                let mean = vae.encode(images).mean;
                self.latents
                    .extend(rows(vae.scale(mean).into_data(), length));
            }
        }
    }

    fn latents<B: Backend>(&self, images: &[usize], device: &Device<B>) -> Tensor<B, 4> {
        let [channels, height, width] = self.latent_shape;
        let values = images.iter().flat_map(|&i| self.latents[i].iter().copied());
        let shape = [images.len(), channels, height, width];
        Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), shape), device)
    }

    fn contexts<B: Backend>(&self, prompts: &[usize], device: &Device<B>) -> Tensor<B, 3> {
        let [tokens, width] = self.state_shape;
        let values = prompts.iter().flat_map(|&i| self.states[i].iter().copied());
        let shape = [prompts.len(), tokens, width];
        Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), shape), device)
    }

    /// The images of step `step`, `extra_share` of them from the extra ones.
    fn draw(&self, config: &DiffusionPretrainingConfig, step: usize) -> Vec<usize> {
        let num_own = self.num_images - self.num_extra;
        let from_extra = match self.num_extra {
            0 => 0,
            _ => (config.extra_share * config.batch_size as f64).round() as usize,
        };
        let mut images = draw(num_own, config.batch_size - from_extra, step, config.seed);
        if from_extra > 0 {
            let extra = draw(self.num_extra, from_extra, step, config.seed + 1);
            images.extend(extra.into_iter().map(|image| num_own + image));
        }
        images
    }

    fn captions(&self, images: &[usize]) -> Vec<usize> {
        images.iter().map(|&i| self.prompts[i][0]).collect()
    }
}

fn rows(data: TensorData, length: usize) -> Vec<Vec<f32>> {
    let values: Vec<f32> = data.iter::<f32>().collect();
    values.chunks(length).map(<[f32]>::to_vec).collect()
}

fn steps_tensor<B: Backend>(timesteps: &[usize], device: &Device<B>) -> Tensor<B, 1> {
    let values: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    Tensor::from_data(TensorData::new(values, [timesteps.len()]), device)
}

/// What one step shows: images, a prompt and a time step for each, and a stream of noise.
struct Batch {
    /// Places of their latents: in some form.
    images: Vec<usize>,
    prompts: Vec<usize>,
    timesteps: Vec<usize>,
    weights: Vec<f32>,
    random: ChaCha8Rng,
}

impl Batch {
    fn draw(
        config: &DiffusionPretrainingConfig,
        cache: &Cache,
        schedule: &NoiseSchedule,
        step: usize,
    ) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        random.set_stream(step as u64 + 1);
        let mut images = cache.draw(config, step);
        let prompts = images
            .iter()
            .map(|&image| {
                let prompts = &cache.prompts[image];
                if random.random_bool(config.unconditional_fraction) {
                    0
                } else if prompts.len() == 1 || random.random_bool(config.caption_fraction) {
                    prompts[0]
                } else {
                    prompts[random.random_range(1..prompts.len())]
                }
            })
            .collect();
        let power = config.timestep_power;
        let timesteps = spread_timesteps(images.len(), power, schedule, &mut random);
        if config.views > 1 {
            for image in &mut images {
                *image += cache.num_images * random.random_range(0..config.views);
            }
        }
        Self {
            images,
            prompts,
            weights: weights(&timesteps, schedule, config.gamma),
            timesteps,
            random,
        }
    }

    /// Noised latents, what to predict, and the weight of each row, `[batch, 1, 1, 1]`.
    fn tensors<B: Backend>(
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

/// One time step for each row, spread over the schedule (evenly, for a power of 1) and shuffled: less luck in the loss
/// than `count` independent draws.
fn spread_timesteps(
    count: usize,
    power: f64,
    schedule: &NoiseSchedule,
    random: &mut ChaCha8Rng,
) -> Vec<usize> {
    let total = schedule.num_train_timesteps();
    let mut timesteps: Vec<usize> = (0..count)
        .map(|i| {
            let place = ((i as f64 + random.random::<f64>()) / count as f64).powf(power);
            ((place * total as f64) as usize).min(total - 1)
        })
        .collect();
    timesteps.shuffle(random);
    timesteps
}

fn weights(timesteps: &[usize], schedule: &NoiseSchedule, gamma: f64) -> Vec<f32> {
    timesteps
        .iter()
        .map(|&t| schedule.loss_weight(t, gamma) as f32)
        .collect()
}

/// Held-out loss and pictures, with the same noise every time.
struct Judge<'a, D> {
    config: &'a DiffusionPretrainingConfig,
    schedule: &'a NoiseSchedule,
    device: &'a D,
}

/// Images that an evaluation looks at.
const EVALUATED: usize = 128;

impl<D> Judge<'_, D> {
    fn loss<B: Backend<Device = D>>(
        &self,
        network: &UNet2DConditionModel<B>,
        cache: &Cache,
    ) -> f64 {
        let images: Vec<usize> = (0..cache.num_images.min(EVALUATED)).collect();
        let mut random = ChaCha8Rng::seed_from_u64(self.config.seed ^ 0xe7a1);
        let timesteps = spread_timesteps(images.len(), 1.0, self.schedule, &mut random);
        let mut sum = 0.0;
        for (images, timesteps) in images.chunks(64).zip(timesteps.chunks(64)) {
            let batch = Batch {
                images: images.to_vec(),
                prompts: cache.captions(images),
                timesteps: timesteps.to_vec(),
                weights: weights(timesteps, self.schedule, self.config.gamma),
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

    fn draw<B: Backend<Device = D>>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_above_one_prefers_little_noise() {
        let schedule = NoiseSchedule::new(&tiny_scheduler()).unwrap();
        let quarters = |power| {
            let mut random = ChaCha8Rng::seed_from_u64(1);
            let mut counts = [0; 4];
            for timestep in spread_timesteps(400, power, &schedule, &mut random) {
                counts[timestep * 4 / schedule.num_train_timesteps()] += 1;
            }
            counts
        };
        assert_eq!(quarters(1.0), [100; 4]);
        // u² < 1/4 for u < 1/2, u² < 1/2 for u < 0.707, u² < 3/4 for u < 0.866.
        assert_eq!(quarters(2.0), [200, 83, 64, 53]);
    }
}
