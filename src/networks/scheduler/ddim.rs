//! The deterministic DDIM sampler (Song et al., 2021; η = 0). Source: diffusers `DDIMScheduler`.

use burn::tensor::{Tensor, backend::Backend};

use super::config::{PredictionType, SchedulerConfig, SchedulerError, TimestepSpacing};
use super::noise_schedule::NoiseSchedule;

/// A sampler with its steps laid out.
#[derive(Debug, Clone)]
pub struct Ddim {
    timesteps: Vec<usize>,
    /// `ᾱ` at each step and at the one after it.
    alphas: Vec<(f64, f64)>,
    prediction_type: PredictionType,
    clip: Option<f64>,
}

impl Ddim {
    /// `num_steps` sampling steps over the schedule of `config`.
    ///
    /// # Errors
    /// When the configuration is not supported, or `num_steps` is zero or above the training steps.
    pub fn new(config: &SchedulerConfig, num_steps: usize) -> Result<Self, SchedulerError> {
        let schedule = NoiseSchedule::new(config)?;
        let total = config.num_train_timesteps;
        if num_steps == 0 || num_steps > total {
            return Err(SchedulerError::Steps {
                found: num_steps,
                most: total,
            });
        }
        let timesteps = timesteps(config, num_steps);
        // The step that follows lies one stride lower, whatever the list says next.
        let stride = total / num_steps;
        let end = if config.set_alpha_to_one {
            1.0
        } else {
            schedule.alpha_cumprod(0)
        };
        let alphas = timesteps
            .iter()
            .map(|&t| {
                let next = t.checked_sub(stride);
                (
                    schedule.alpha_cumprod(t),
                    next.map_or(end, |next| schedule.alpha_cumprod(next)),
                )
            })
            .collect();
        Ok(Self {
            timesteps,
            alphas,
            prediction_type: config.prediction_type,
            clip: config.clip_sample.then_some(config.clip_sample_range),
        })
    }

    /// The training step of every sampling step, from noise to image.
    pub fn timesteps(&self) -> &[usize] {
        &self.timesteps
    }

    /// The sample after sampling step `index`, from the network's output at it.
    ///
    /// # Panics
    /// When `index` is not below the number of steps.
    pub fn step<B: Backend, const D: usize>(
        &self,
        model_output: Tensor<B, D>,
        index: usize,
        sample: Tensor<B, D>,
    ) -> Tensor<B, D> {
        let (alpha, next) = self.alphas[index];
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        // Clean sample and noise as combinations of the sample and the output.
        let (clean, noise) = match self.prediction_type {
            PredictionType::Epsilon => ([1.0 / signal, -spread / signal], [0.0, 1.0]),
            PredictionType::Sample => ([0.0, 1.0], [1.0 / spread, -signal / spread]),
            PredictionType::VPrediction => ([signal, -spread], [spread, signal]),
        };
        let (next_signal, next_spread) = (next.sqrt(), (1.0 - next).sqrt());
        let combine = |[of_sample, of_output]: [f64; 2]| {
            sample.clone().mul_scalar(of_sample) + model_output.clone().mul_scalar(of_output)
        };
        match self.clip {
            None => combine([0, 1].map(|i| next_signal * clean[i] + next_spread * noise[i])),
            Some(range) => {
                combine(clean).clamp(-range, range).mul_scalar(next_signal)
                    + combine(noise).mul_scalar(next_spread)
            }
        }
    }
}

fn timesteps(config: &SchedulerConfig, num_steps: usize) -> Vec<usize> {
    let total = config.num_train_timesteps;
    let last = total - 1;
    match config.timestep_spacing {
        TimestepSpacing::Leading => (0..num_steps)
            .rev()
            .map(|i| (i * (total / num_steps) + config.steps_offset).min(last))
            .collect(),
        TimestepSpacing::Trailing => (0..num_steps)
            .map(|i| {
                let place = total as f64 * (num_steps - i) as f64 / num_steps as f64;
                (place.round_ties_even() as usize).saturating_sub(1)
            })
            .collect(),
        TimestepSpacing::Linspace => (0..num_steps)
            .rev()
            .map(|i| {
                let spread = (num_steps.max(2) - 1) as f64;
                (last as f64 * i as f64 / spread).round_ties_even() as usize
            })
            .collect(),
    }
}
