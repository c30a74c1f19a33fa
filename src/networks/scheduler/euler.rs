//! Euler's method over noise levels (Karras et al., 2022, algorithm 2 without churn). Its samples are the clean ones
//! plus `σ` times noise, so the network sees them divided by `√(σ² + 1)`. Source: diffusers `EulerDiscreteScheduler`.

use burn::tensor::{Tensor, backend::Backend};

use super::config::{SchedulerConfig, SchedulerError, TimestepSpacing};
use super::prediction::{PredictionType, combine};
use super::sampler::{Sampler, StepNoise};
use super::sigmas::Levels;

/// A sampler with its steps laid out.
#[derive(Debug, Clone)]
pub struct Euler {
    layout: Levels,
    initial_scale: f64,
    prediction_type: PredictionType,
}

impl Euler {
    /// `num_steps` sampling steps over the schedule of `config`.
    ///
    /// # Errors
    /// When the configuration is not supported, or the schedule does not have so many steps.
    pub fn new(config: &SchedulerConfig, num_steps: usize) -> Result<Self, SchedulerError> {
        let layout = Levels::euler(config, num_steps)?;
        let noisiest = layout.levels.iter().map(|l| l.sigma).fold(0.0, f64::max);
        Ok(Self {
            initial_scale: match config.timestep_spacing {
                // These begin at the schedule's noisiest step, where hardly any signal is left.
                TimestepSpacing::Linspace | TimestepSpacing::Trailing => noisiest,
                TimestepSpacing::Leading => (noisiest * noisiest + 1.0).sqrt(),
            },
            layout,
            prediction_type: config.prediction_type,
        })
    }
}

impl<B: Backend> Sampler<B> for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.layout.timesteps
    }

    fn initial_scale(&self) -> f64 {
        self.initial_scale
    }

    fn scale_input(&self, sample: Tensor<B, 4>, index: usize) -> Tensor<B, 4> {
        sample.mul_scalar(self.layout.levels[index].signal)
    }

    fn mixture(&self, index: usize) -> Option<[f64; 2]> {
        Some([1.0, self.layout.levels[index].sigma])
    }

    fn step(
        &mut self,
        output: Tensor<B, 4>,
        index: usize,
        sample: Tensor<B, 4>,
        _noise: StepNoise<'_, B>,
    ) -> Tensor<B, 4> {
        let levels = &self.layout.levels;
        let (here, next) = (levels[index], levels[index + 1]);
        let [of_input, of_output] = self.prediction_type.clean(here.signal, here.spread);
        let clean = combine([of_input * here.signal, of_output], &sample, &output);
        let slope = (sample.clone() - clean).div_scalar(here.sigma);
        sample + slope.mul_scalar(next.sigma - here.sigma)
    }
}
