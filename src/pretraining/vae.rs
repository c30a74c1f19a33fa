//! Training of the autoencoder between 64×64 stickers and latents.
//!
//! The loss is absolute + squared error of the pixels, absolute error of their differences to the right and downwards
//! (stickers live by their outlines), and a small divergence that keeps the latents near one scale. No network judges
//! the images, so nothing but the training pictures is learned from.

use std::path::Path;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::PretrainingError;
use super::initial::seeded;
use super::pixels::{Augmentation, ImageSet, write_grid};
use super::trainer::{Evaluation, Parts, Trainer, TrainerConfig, num_parameters, scalar};
use crate::networks::diffusion::{AutoencoderKl, VaeConfig};
use crate::optimisation::{AdamWConfig, Decay, Interrupt, Progress, Schedule};

/// A run of autoencoder training. None of these values comes from the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VaePretrainingConfig {
    /// The network; its `scaling_factor` is measured after training.
    pub network: VaeConfig,
    /// Steps, rates, intervals.
    pub trainer: TrainerConfig,
    /// Random changes of the training images.
    pub augmentation: Augmentation,
    /// Images a step.
    pub batch_size: usize,
    /// Weight of the squared error beside the absolute one.
    pub squared_weight: f64,
    /// Weight of the outlines' error.
    pub edge_weight: f64,
    /// Weight of the divergence, which is summed over an image's latents.
    pub divergence_weight: f64,
    /// Seed of weights, order, augmentation and noise.
    pub seed: u64,
}

impl Default for VaePretrainingConfig {
    fn default() -> Self {
        Self {
            network: tiny_vae(),
            trainer: TrainerConfig {
                steps: 2000,
                schedule: Schedule {
                    learning_rate: 2e-3,
                    warmup_steps: 50,
                    decay: Decay::Cosine,
                    final_fraction: 0.02,
                },
                optimizer: AdamWConfig {
                    beta_2: 0.99,
                    weight_decay: 1e-4,
                    ..AdamWConfig::default()
                },
                average_decay: 0.99,
                ..TrainerConfig::default()
            },
            augmentation: Augmentation::default(),
            batch_size: 16,
            squared_weight: 2.0,
            edge_weight: 0.5,
            divergence_weight: 1e-6,
            seed: 1,
        }
    }
}

/// The tiny family's autoencoder: a quarter of the height and width, four channels.
pub fn tiny_vae() -> VaeConfig {
    VaeConfig {
        class_name: "AutoencoderKL".into(),
        sample_size: Some(64),
        in_channels: 3,
        out_channels: 3,
        latent_channels: 4,
        down_block_types: vec!["DownEncoderBlock2D".into(); 3],
        up_block_types: vec!["UpDecoderBlock2D".into(); 3],
        block_out_channels: vec![24, 32, 80],
        layers_per_block: 1,
        act_fn: crate::nn::activation::Activation::Silu,
        norm_num_groups: 8,
        scaling_factor: 1.0,
        shift_factor: None,
        mid_block_add_attention: true,
        use_quant_conv: true,
        use_post_quant_conv: true,
        latents_mean: None,
        latents_std: None,
    }
}

/// What a training run is worth.
#[derive(Debug, Clone, Serialize)]
pub struct VaeReport {
    /// Steps taken.
    pub steps: usize,
    /// Parameters of the network.
    pub parameters: usize,
    /// Mean peak signal-to-noise ratio of held-out images, in decibels.
    pub held_out_psnr: f64,
    /// The same of training images.
    pub training_psnr: f64,
    /// One over the standard deviation of the training images' latents.
    pub scaling_factor: f64,
    /// Was the run stopped before its last step?
    pub interrupted: bool,
}

/// A trained autoencoder (averaged weights, `scaling_factor` set) with its configuration.
#[derive(Debug)]
pub struct TrainedVae<B: Backend> {
    pub network: AutoencoderKl<B>,
    pub config: VaeConfig,
    pub report: VaeReport,
}

/// Trains on `training`, reports on `held_out`; checkpoints, `metrics.jsonl` and `samples/` go to `folder`. A run that
/// finds checkpoints there goes on from the newest.
///
/// # Errors
/// When the configuration or the data do not fit, the loss is not finite, or the disk refuses.
#[allow(clippy::too_many_arguments)]
pub fn run<B: AutodiffBackend>(
    config: &VaePretrainingConfig,
    training: &ImageSet,
    held_out: &ImageSet,
    folder: &Path,
    device: &Device<B>,
    frozen: &Device<B>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<TrainedVae<B::InnerBackend>, PretrainingError> {
    if training.len() < config.batch_size || config.batch_size == 0 || held_out.is_empty() {
        return Err(PretrainingError::Data(format!(
            "{} training and {} held-out images for batches of {}",
            training.len(),
            held_out.len(),
            config.batch_size
        )));
    }
    let network = config.network.init::<B>(device)?;
    let network = seeded(network, config.seed, |path| path.ends_with("conv2.weight"));
    let identity = json!({
        "network": config.network,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "images": training.len(),
    });
    let trainer = Trainer::<B, _>::open(
        &config.trainer,
        &identity,
        network,
        folder,
        frozen,
        progress,
    )?;
    let lesson = |network: &AutoencoderKl<B>, step: usize| {
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        random.set_stream(step as u64 + 1);
        let indices = draw(training.len(), config.batch_size, step, config.seed);
        let image = training.random_batch::<B>(&indices, &config.augmentation, &mut random, device);
        Ok(loss(config, network, image, &mut random))
    };
    let evaluate = |averaged: &AutoencoderKl<B::InnerBackend>, step: usize| {
        let shown: Vec<usize> = (0..held_out.len().min(16)).collect();
        let truth = held_out.batch::<B::InnerBackend>(&shown, frozen);
        let drawn = averaged.decode(averaged.encode(truth.clone()).mean);
        let path = folder.join(format!("samples/step-{step}.png"));
        write_grid(&path, &[truth, drawn])?;
        let psnr = mean_psnr(averaged, held_out, frozen);
        Ok(Evaluation {
            metrics: json!({ "held_out_psnr": psnr }),
            words: format!("held-out PSNR {psnr:.2} dB"),
        })
    };
    let outcome = trainer.run("autoencoder", interrupt, lesson, evaluate)?;
    let mut network = outcome.network;
    let scaling_factor = 1.0 / latent_deviation(&network, training, frozen);
    network.scaling_factor = scaling_factor;
    let report = VaeReport {
        steps: outcome.steps,
        parameters: num_parameters(&network),
        held_out_psnr: mean_psnr(&network, held_out, frozen),
        training_psnr: mean_psnr(&network, training, frozen),
        scaling_factor,
        interrupted: outcome.interrupted,
    };
    let config = VaeConfig {
        scaling_factor,
        ..config.network.clone()
    };
    Ok(TrainedVae {
        network,
        config,
        report,
    })
}

/// The indices of step `step`: the data in a new random order each epoch.
pub(super) fn draw(count: usize, batch: usize, step: usize, seed: u64) -> Vec<usize> {
    let per_epoch = (count / batch).max(1);
    let mut order: Vec<usize> = (0..count).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
    random.set_stream((step / per_epoch) as u64);
    order.shuffle(&mut random);
    let start = (step % per_epoch) * batch;
    (start..start + batch).map(|i| order[i % count]).collect()
}

/// Standard normal values in `shape`, drawn on the host.
pub(super) fn noise<B: Backend>(
    shape: [usize; 4],
    random: &mut ChaCha8Rng,
    device: &Device<B>,
) -> Tensor<B, 4> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| StandardNormal.sample(random)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn loss<B: AutodiffBackend>(
    config: &VaePretrainingConfig,
    network: &AutoencoderKl<B>,
    image: Tensor<B, 4>,
    random: &mut ChaCha8Rng,
) -> (Tensor<B, 1>, Parts<B>) {
    let latent = network.encode(image.clone());
    let noise = noise(latent.mean.dims(), random, &image.device());
    let drawn = network.decode(latent.sample(noise));
    let error = drawn - image;
    let [_, _, height, width] = error.dims();
    let rightwards = error.clone().narrow(3, 1, width - 1) - error.clone().narrow(3, 0, width - 1);
    let downwards = error.clone().narrow(2, 1, height - 1) - error.clone().narrow(2, 0, height - 1);
    let edges = rightwards.abs().mean() + downwards.abs().mean();
    let squared = error.clone().powi_scalar(2).mean();
    let absolute = error.abs().mean();
    let divergence = latent.divergence();
    let loss = absolute.clone()
        + squared.clone().mul_scalar(config.squared_weight)
        + edges.clone().mul_scalar(config.edge_weight)
        + divergence.clone().mul_scalar(config.divergence_weight);
    let parts = vec![
        ("absolute", absolute),
        ("squared", squared),
        ("edges", edges),
        ("divergence", divergence),
    ];
    (loss, parts)
}

/// Mean over images of the peak signal-to-noise ratio of `decode(encode(image).mean)`, in decibels.
pub fn mean_psnr<B: Backend>(
    network: &AutoencoderKl<B>,
    images: &ImageSet,
    device: &Device<B>,
) -> f64 {
    let indices: Vec<usize> = (0..images.len()).collect();
    let mut sum = 0.0;
    for chunk in indices.chunks(32) {
        let image = images.batch::<B>(chunk, device);
        let drawn = network.decode(network.encode(image.clone()).mean);
        // Pixels span [−1, 1]: halving the error puts it on the usual unit range.
        let error = (drawn.clamp(-1.0, 1.0) - image).div_scalar(2.0);
        let squared = error.powi_scalar(2).flatten::<2>(1, 3).mean_dim(1);
        sum += squared
            .into_data()
            .iter::<f64>()
            .map(|error| -10.0 * error.max(1e-10).log10())
            .sum::<f64>();
    }
    sum / images.len() as f64
}

fn latent_deviation<B: Backend>(
    network: &AutoencoderKl<B>,
    images: &ImageSet,
    device: &Device<B>,
) -> f64 {
    let indices: Vec<usize> = (0..images.len()).collect();
    let (mut sum, mut squares, mut count) = (0f64, 0f64, 0usize);
    for chunk in indices.chunks(32) {
        let mean = network.encode(images.batch::<B>(chunk, device)).mean;
        count += mean.dims().iter().product::<usize>();
        squares += f64::from(scalar(mean.clone().powi_scalar(2).sum()));
        sum += f64::from(scalar(mean.sum()));
    }
    let mean = sum / count as f64;
    (squares / count as f64 - mean * mean).max(1e-12).sqrt()
}
