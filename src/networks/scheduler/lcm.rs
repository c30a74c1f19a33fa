//! Sampling of latent consistency models (Luo et al., 2023): every step predicts the clean sample, and all but the last
//! put fresh noise on it. Source: diffusers `LCMScheduler`.

use burn::tensor::{Tensor, backend::Backend};

use super::config::{SchedulerConfig, SchedulerError};
use super::noise_schedule::NoiseSchedule;
use super::prediction::{PredictionType, combine};
use super::sampler::{Sampler, StepNoise};
use super::timesteps::check_steps;

/// Standard deviation of the data that the boundary condition assumes.
const DATA_DEVIATION: f64 = 0.5;

/// A sampler with its steps laid out.
#[derive(Debug, Clone)]
pub struct Lcm {
    timesteps: Vec<f64>,
    /// `ᾱ` at each step.
    alphas: Vec<f64>,
    prediction_type: PredictionType,
    clip: Option<f64>,
    timestep_scaling: f64,
}

impl Lcm {
    /// `num_steps` of the steps that the network was distilled on.
    ///
    /// # Errors
    /// When the configuration is not supported, or there are fewer such steps.
    pub fn new(config: &SchedulerConfig, num_steps: usize) -> Result<Self, SchedulerError> {
        let schedule = NoiseSchedule::new(config)?;
        let distilled = config.original_inference_steps;
        check_steps(num_steps, 1, distilled)?;
        let stride = config.num_train_timesteps / distilled;
        let timesteps: Vec<usize> = (0..num_steps)
            .map(|i| {
                let place = (i as f64 * (distilled as f64 / num_steps as f64)).floor();
                (distilled - place as usize) * stride - 1
            })
            .collect();
        schedule.check_first_step(timesteps[0])?;
        Ok(Self {
            alphas: timesteps
                .iter()
                .map(|&t| schedule.alpha_cumprod(t))
                .collect(),
            timesteps: timesteps.into_iter().map(|t| t as f64).collect(),
            prediction_type: config.prediction_type,
            clip: config.clip_sample.then_some(config.clip_sample_range),
            timestep_scaling: config.timestep_scaling,
        })
    }
}

impl<B: Backend> Sampler<B> for Lcm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        output: Tensor<B, 4>,
        index: usize,
        sample: Tensor<B, 4>,
        noise: StepNoise<'_, B>,
    ) -> Tensor<B, 4> {
        let alpha = self.alphas[index];
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let mut clean = combine(self.prediction_type.clean(signal, spread), &sample, &output);
        if let Some(range) = self.clip {
            clean = clean.clamp(-range, range);
        }
        // The boundary condition: at step 0 the sample is its own prediction.
        let time = self.timesteps[index] * self.timestep_scaling;
        let total = time * time + DATA_DEVIATION * DATA_DEVIATION;
        let weights = [DATA_DEVIATION * DATA_DEVIATION / total, time / total.sqrt()];
        let denoised = combine(weights, &sample, &clean);
        match self.alphas.get(index + 1) {
            Some(next) => combine([next.sqrt(), (1.0 - next).sqrt()], &denoised, &noise(index)),
            None => denoised,
        }
    }
}
