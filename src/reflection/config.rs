//! Settings of the reflection module.

use serde::{Deserialize, Serialize};

use super::losses::Distance;
use super::reward::{Baseline, RewardForm};
use crate::generation::generator::{GenerateOptions, is_whole, is_zero};
use crate::networks::scheduler::SchedulerChoice;

/// Which noises are tried around `E_gen`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Exploration {
    /// `N(0, I)` over all tokens (paper).
    #[default]
    Independent,
    /// Noise in the span of what retrieval found (ours; after guided evolution strategies, Maheswaranathan et al., 2019):
    /// random shares of the ways from the reference's caption to the retrieved items' captions, and of the way from `E_gen` to
    /// the reference's caption, as the generator's text encoder reads them. A handful of directions, each between real
    /// prompts, in place of thousands.
    Retrieved,
    /// One noise for all tokens of an image (ours): `Q` times fewer directions to tell apart by the same few rewards. The
    /// gradient then moves all tokens alike.
    SharedByTokens,
}

/// More calls than any sampler makes.
const EVERY: usize = 1000;

fn is_nothing(weight: &f32) -> bool {
    *weight == 0.0
}

fn is_every(calls: &usize) -> bool {
    *calls == EVERY
}

/// How the reward reaches `E_gen`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum RewardGradient {
    /// By the policy gradient of explored images (paper).
    #[default]
    Policy,
    /// By the reward's own gradient, back through judge, visual encoder, decoder and the last denoising steps (ours).
    Direct,
}

impl RewardGradient {
    /// Is it the paper's?
    pub fn is_policy(&self) -> bool {
        *self == Self::Policy
    }
}

/// Settings of the reflection module. Only `num_noises` is in the paper; the rest is our reading.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ReflectionConfig {
    /// How the reward reaches `E_gen`. Like the next key left out of what a checkpoint belongs to where it is the paper's.
    #[serde(skip_serializing_if = "RewardGradient::is_policy")]
    pub gradient: RewardGradient,
    /// With `gradient = "direct"`: the last calls of the denoising network that the gradient goes through; more see
    /// more of how the image comes about, and take their memory.
    #[serde(skip_serializing_if = "is_every")]
    pub direct_calls: usize,
    /// `n`: explored images per sample (paper: 3). 0 switches the rank loss off.
    pub num_noises: usize,
    /// σ: deviation of the exploration, in units of the conditioning.
    pub sigma: f32,
    /// Which noises are tried.
    pub exploration: Exploration,
    /// Whether σ is trained too, from `sigma` on (ours).
    pub learn_sigma: bool,
    /// Whether all images of a sample start from the same latent, so that their rewards differ by the conditioning alone
    /// (common random numbers; ours). Otherwise each has a latent of its own in every step.
    pub common_noise: bool,
    /// δ: what the personalised image must be ahead by.
    pub margin: f32,
    /// What the likeness of image and reference's caption (cosine in CLIP's joint space) adds to the reward (ours): the
    /// ranking model knows taste, not whether the reference is still there.
    #[serde(skip_serializing_if = "is_nothing")]
    pub semantic_reward: f32,
    /// The reward's form.
    pub reward: RewardForm,
    /// What is subtracted from it.
    pub baseline: Baseline,
    /// Whether advantages are divided by their running deviation.
    pub normalise_advantages: bool,
    /// α, of `L_rank`.
    pub rank_weight: f32,
    /// β, of `L_cal`.
    pub calibration_weight: f32,
    /// γ, of `L_sem`.
    pub semantic_weight: f32,
    /// Distance of `L_cal` and `L_sem`.
    pub distance: Distance,
    /// Denoising steps of the images drawn while training: fewer than at inference, for drawing is nearly all of the cost.
    pub num_steps: usize,
    /// Guidance of those images.
    pub guidance_scale: f64,
    /// Of those images, as `inference.guidance_rescale`. Left out where it is 0, like the sampler.
    #[serde(skip_serializing_if = "is_zero")]
    pub guidance_rescale: f64,
    /// Images denoised at once.
    pub images_per_batch: usize,
    /// Sampler of those images, as `inference.scheduler`. Left out where it is the pipeline's: checkpoints of older runs
    /// belong to configurations without the key.
    #[serde(skip_serializing_if = "SchedulerChoice::is_pipeline")]
    pub scheduler: SchedulerChoice,
    /// Of those images, as `inference.strength`: 1 begins at pure noise (paper). Left out there, like the sampler.
    #[serde(skip_serializing_if = "is_whole")]
    pub strength: f64,
}

impl Default for ReflectionConfig {
    fn default() -> Self {
        Self {
            gradient: RewardGradient::Policy,
            direct_calls: EVERY,
            num_noises: 3,
            sigma: 0.1,
            exploration: Exploration::Independent,
            learn_sigma: false,
            common_noise: true,
            margin: 0.0,
            semantic_reward: 0.0,
            reward: RewardForm::Margin,
            baseline: Baseline::LeaveOneOut,
            normalise_advantages: true,
            rank_weight: 1.0,
            calibration_weight: 1.0,
            semantic_weight: 0.1,
            distance: Distance::Mse,
            num_steps: 8,
            guidance_scale: 3.0,
            guidance_rescale: 0.0,
            images_per_batch: 16,
            scheduler: SchedulerChoice::Pipeline,
            strength: 1.0,
        }
    }
}

impl ReflectionConfig {
    /// How the images drawn while training are drawn.
    pub fn options(&self) -> GenerateOptions {
        GenerateOptions {
            num_steps: self.num_steps,
            guidance_scale: self.guidance_scale,
            guidance_rescale: self.guidance_rescale,
            scheduler: self.scheduler,
            strength: self.strength,
        }
    }

    /// Refuses values without a meaning, with the reason.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if !(self.sigma > 0.0 && self.sigma.is_finite()) {
            return Err(format!("sigma = {} must be above 0", self.sigma));
        }
        if self.direct_calls == 0 {
            return Err("direct_calls must be at least 1: no gradient would be left".into());
        }
        if self.num_steps == 0 || self.images_per_batch == 0 {
            return Err("num_steps and images_per_batch must be at least 1".into());
        }
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return Err(format!(
                "guidance_rescale = {} must be from 0 to 1",
                self.guidance_rescale
            ));
        }
        if !(self.strength > 0.0 && self.strength <= 1.0) {
            return Err(format!(
                "strength = {} must be above 0 and at most 1",
                self.strength
            ));
        }
        let weights = [
            ("rank_weight", self.rank_weight),
            ("calibration_weight", self.calibration_weight),
            ("semantic_weight", self.semantic_weight),
            ("margin", self.margin),
            ("semantic_reward", self.semantic_reward),
            ("guidance_scale", self.guidance_scale as f32),
        ];
        for (key, value) in weights {
            if !value.is_finite() || value < 0.0 {
                return Err(format!("{key} = {value} must be a number of at least 0"));
            }
        }
        Ok(())
    }
}
