//! `scheduler_config.json`, as diffusers writes it for DDIM and its relatives. Unknown keys are allowed.

use serde::{Deserialize, Serialize};

/// How the noise grows over the training steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// β evenly spaced.
    Linear,
    /// √β evenly spaced (Stable Diffusion).
    ScaledLinear,
    /// The squared-cosine schedule of improved DDPM.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCosine,
}

/// What the denoising network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// `√ᾱ · noise − √(1 − ᾱ) · sample` (Salimans and Ho).
    VPrediction,
    /// The clean sample.
    Sample,
}

/// How the sampler's steps lie among the training steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// From step 0 upwards.
    Leading,
    /// From the last step downwards.
    Trailing,
    /// Both ends included.
    Linspace,
}

/// A schedule that cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SchedulerError {
    /// An option that this implementation does not know.
    #[error("`{key}` is {found}: only {supported} is supported")]
    Unsupported {
        key: &'static str,
        found: String,
        supported: String,
    },
    /// More sampling steps than training steps, or none.
    #[error("{found} sampling steps: choose between 1 and {most}")]
    Steps { found: usize, most: usize },
}

/// A noise schedule and its sampler; defaults are diffusers' `DDIMScheduler`'s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    pub num_train_timesteps: usize,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: BetaSchedule,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f64>>,
    /// Clamp the predicted clean sample to ± `clip_sample_range` at every step.
    pub clip_sample: bool,
    pub clip_sample_range: f64,
    /// Is the step before the first free of noise, or as noisy as training step 0?
    pub set_alpha_to_one: bool,
    /// Added to the steps of `leading` spacing.
    pub steps_offset: usize,
    pub prediction_type: PredictionType,
    pub timestep_spacing: TimestepSpacing,
    /// Shift the schedule so that the last step holds no signal (Lin et al., 2023).
    pub rescale_betas_zero_snr: bool,
    pub thresholding: bool,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class_name: "DDIMScheduler".into(),
            num_train_timesteps: 1000,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            trained_betas: None,
            clip_sample: true,
            clip_sample_range: 1.0,
            set_alpha_to_one: true,
            steps_offset: 0,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Leading,
            rescale_betas_zero_snr: false,
            thresholding: false,
        }
    }
}

impl SchedulerConfig {
    /// Refuses what would change the arithmetic and is not supported.
    ///
    /// # Errors
    /// Names the first such key.
    pub fn validate(&self) -> Result<(), SchedulerError> {
        let refuse = |key, found: String, supported: &str| {
            Err(SchedulerError::Unsupported {
                key,
                found,
                supported: supported.into(),
            })
        };
        if self.thresholding {
            return refuse("thresholding", "true".into(), "false");
        }
        if self.num_train_timesteps == 0 {
            return refuse("num_train_timesteps", "0".into(), "a positive number");
        }
        let ordered =
            0.0 < self.beta_start && self.beta_start <= self.beta_end && self.beta_end < 1.0;
        if !ordered {
            let found = format!("{} (with `beta_end` {})", self.beta_start, self.beta_end);
            return refuse("beta_start", found, "0 < beta_start ≤ beta_end < 1");
        }
        match &self.trained_betas {
            Some(betas) if betas.len() != self.num_train_timesteps => refuse(
                "trained_betas",
                format!("a list of {}", betas.len()),
                "one number per training step",
            ),
            _ => Ok(()),
        }
    }
}
