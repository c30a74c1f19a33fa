//! Training of the denoising network on cached latents and cached text states.
//!
//! Autoencoder and text encoder are frozen, so every image is encoded once and every distinct prompt once, before the
//! first step. An image has several prompts (its caption, keyword forms, forms without a style word); a step draws one.

pub mod adversary;
mod batch;
mod cache;
mod judge;
mod lesson;

use std::path::Path;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::PretrainingError;
use super::initial::seeded;
use super::learner::Learner;
use super::pixels::{Augmentation, ImageSet};
use super::trainer::{Evaluation, Trainer, TrainerConfig, num_parameters};
use crate::generation::generator::GenerateOptions;
use crate::networks::diffusion::{AutoencoderKl, PerLevel, UNet2DConditionModel, UNetConfig};
use crate::networks::scheduler::{
    BetaSchedule, NoiseSchedule, PredictionType, SchedulerConfig, TimestepSpacing,
};
use crate::nn::activation::Activation;
use crate::optimisation::parameters::{Selection, collect, restore};
use crate::optimisation::{AdamWConfig, Decay, Interrupt, Progress, Schedule};
pub use adversary::AdversarialConfig;
use adversary::{Adversary, Contest};
use cache::Cache;
use judge::Judge;
use lesson::Lessons;

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
    /// What the steps of little noise learn from, where that is not what all learn from.
    pub little_noise: LittleNoise,
    /// Recognisers to learn against, beside the squared error.
    pub adversarial: AdversarialConfig,
    /// Forms in which an image is shown: 1 is the image alone, each further one is mirrored, moved and scaled at random, once. Where
    /// `little_noise.share` is above 0, its images alone have them.
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

/// Time steps at which a picture shows through its noise, where outlines and shading are decided. What they have to learn is much the same for any picture, so
/// they can have more pictures than the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LittleNoise {
    /// These are the time steps below this one.
    pub below: usize,
    /// Part of each step's images that is shown at one of them, the others at the rest; 0 makes no difference between time steps.
    pub share: f64,
    /// Part of these images that shows further glyphs, if there are any.
    pub extra_share: f64,
}

impl Default for LittleNoise {
    fn default() -> Self {
        Self {
            below: 500,
            share: 0.0,
            extra_share: 0.75,
        }
    }
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
            little_noise: LittleNoise::default(),
            adversarial: AdversarialConfig::default(),
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
    /// Part of a step's images that shows further glyphs, at whatever time step.
    pub fn shown_extra(&self) -> f64 {
        let little = &self.little_noise;
        (1.0 - little.share) * self.extra_share + little.share * little.extra_share
    }

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
        for (key, share) in [
            ("extra_share", self.extra_share),
            ("little_noise.share", self.little_noise.share),
            ("little_noise.extra_share", self.little_noise.extra_share),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return fail(key, share.to_string(), "from 0 to 1");
            }
        }
        let little = &self.little_noise;
        let steps = 1..self.scheduler.num_train_timesteps;
        if little.share > 0.0 && !steps.contains(&little.below) {
            let expected = "a time step of the schedule above 0";
            return fail("little_noise.below", little.below.to_string(), expected);
        }
        self.augmentation.validate()?;
        self.adversarial.validate()?;
        if self.adversarial.share > 0.0 && little.share > 0.0 {
            let expected = "0 where adversarial.share is above 0";
            return fail("little_noise.share", little.share.to_string(), expected);
        }
        let alone = self.adversarial.warmup_steps;
        if self.adversarial.share > 0.0 && alone >= self.trainer.steps {
            let expected = "below trainer.steps, or the network learns nothing";
            return fail("adversarial.warmup_steps", alone.to_string(), expected);
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
    /// The style of each, by any name.
    pub styles: Vec<String>,
    /// What each shows, by any name.
    pub glyphs: Vec<String>,
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
        let (styles, glyphs) = (self.styles.len(), self.glyphs.len());
        if styles != images || glyphs != images {
            return Err(PretrainingError::Data(format!(
                "{images} {what} images with {styles} styles and {glyphs} glyphs: every image needs one of each"
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
    let [channels, height, width] = training_cache.latent_shape;
    if config.adversarial.share > 0.0 {
        config.adversarial.validate_shapes(height.min(width))?;
        schedule.check_first_step(schedule.num_train_timesteps() - 1)?;
    }
    let adversary = Adversary::new(&config.adversarial, training);
    let contest = Contest {
        network,
        recognisers: adversary.recognisers(channels, config.seed, device),
    };
    let identity = json!({
        "network": config.network,
        "scheduler": config.scheduler,
        "adversarial": config.adversarial,
        "seed": config.seed,
        "images": training.images.len(),
    });
    let network_learns = Learner {
        prefix: "network.",
        optimizer: &config.trainer.optimizer,
        schedule: &config.trainer.schedule,
        first_step: adversary.steps_alone(),
    };
    let recognisers_learn = Learner {
        prefix: "recognisers.",
        optimizer: &config.adversarial.optimizer,
        schedule: &config.adversarial.schedule,
        first_step: 0,
    };
    let trainer = Trainer::<B, _>::open_with(
        &config.trainer,
        &[network_learns, recognisers_learn],
        &identity,
        contest,
        folder,
        frozen,
        progress,
    )?;
    let judge = Judge {
        config,
        schedule: &schedule,
        device: frozen,
    };
    let lessons = Lessons {
        config,
        cache: &training_cache,
        schedule: &schedule,
        adversary: &adversary,
        device,
    };
    let lesson = |contest: &Contest<B>, step: usize| Ok(lessons.loss(contest, step));
    let evaluate = |averaged: &Contest<B::InnerBackend>, step: usize| {
        let averaged = &averaged.network;
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
    let network = outcome.network.network;
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
