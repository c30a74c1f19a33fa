//! The deterministic DDIM sampler (Song et al., 2021; η = 0). Source: diffusers `DDIMScheduler`.

use burn::tensor::{Tensor, backend::Backend};

use super::config::{SchedulerConfig, SchedulerError};
use super::noise_schedule::NoiseSchedule;
use super::prediction::{PredictionType, combine};
use super::sampler::{Sampler, StepNoise};
use super::timesteps::check_steps;

/// A sampler with its steps laid out.
#[derive(Debug, Clone)]
pub struct Ddim {
    timesteps: Vec<f64>,
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
        check_steps(num_steps, 1, total)?;
        let timesteps: Vec<usize> = config
            .spaced(num_steps)
            .into_iter()
            .map(|t| t.round_ties_even() as usize)
            .collect();
        schedule.check_first_step(timesteps[0])?;
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
            timesteps: timesteps.into_iter().map(|t| t as f64).collect(),
            alphas,
            prediction_type: config.prediction_type,
            clip: config.clip_sample.then_some(config.clip_sample_range),
        })
    }
}

impl<B: Backend> Sampler<B> for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn mixture(&self, index: usize) -> Option<[f64; 2]> {
        let (alpha, _) = self.alphas[index];
        Some([alpha.sqrt(), (1.0 - alpha).sqrt()])
    }

    fn step(
        &mut self,
        output: Tensor<B, 4>,
        index: usize,
        sample: Tensor<B, 4>,
        _noise: StepNoise<'_, B>,
    ) -> Tensor<B, 4> {
        let (alpha, next) = self.alphas[index];
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let clean = self.prediction_type.clean(signal, spread);
        let noise = self.prediction_type.noise(signal, spread);
        let (next_signal, next_spread) = (next.sqrt(), (1.0 - next).sqrt());
        match self.clip {
            None => combine(
                [0, 1].map(|i| next_signal * clean[i] + next_spread * noise[i]),
                &sample,
                &output,
            ),
            Some(range) => {
                combine(clean, &sample, &output)
                    .clamp(-range, range)
                    .mul_scalar(next_signal)
                    + combine(noise, &sample, &output).mul_scalar(next_spread)
            }
        }
    }
}
