//! What all samplers have in common.

use burn::tensor::{Tensor, backend::Backend};

use super::class::SchedulerClass;
use super::config::{SchedulerConfig, SchedulerError};
use super::ddim::Ddim;
use super::dpm_solver::DpmSolver;
use super::euler::Euler;
use super::lcm::Lcm;
use super::pndm::Pndm;
use super::prediction::combine;
use super::unipc::UniPc;

/// Standard normal noise for the step of that index, shaped like the latents. Most samplers never ask.
pub type StepNoise<'a, B> = &'a dyn Fn(usize) -> Tensor<B, 4>;

/// A way from noise to a clean sample, with its steps laid out. One sampler draws one batch: some remember outputs.
pub trait Sampler<B: Backend> {
    /// What the network is told at each of its calls, from noise to image; may be fractional. PNDM asks once more than
    /// it has steps.
    fn timesteps(&self) -> &[f64];

    /// What standard normal noise is multiplied by to become the first sample.
    fn initial_scale(&self) -> f64 {
        1.0
    }

    /// What the network sees of the sample at call `index`.
    fn scale_input(&self, sample: Tensor<B, 4>, _index: usize) -> Tensor<B, 4> {
        sample
    }

    /// What a clean sample and standard normal noise weigh in the sample that call `index` expects. None of samplers that
    /// must begin at their first call.
    fn mixture(&self, _index: usize) -> Option<[f64; 2]> {
        None
    }

    /// `clean` under the noise that call `index` expects: where drawing may begin in place of pure noise. None where
    /// [`Self::mixture`] is.
    fn noised(
        &self,
        clean: Tensor<B, 4>,
        noise: Tensor<B, 4>,
        index: usize,
    ) -> Option<Tensor<B, 4>> {
        let weights = self.mixture(index)?;
        Some(combine(weights, &clean, &noise))
    }

    /// The sample after call `index`, from the network's output at it.
    ///
    /// # Panics
    /// When calls are left out (but those before the first) or `index` is not below their number.
    fn step(
        &mut self,
        output: Tensor<B, 4>,
        index: usize,
        sample: Tensor<B, 4>,
        noise: StepNoise<'_, B>,
    ) -> Tensor<B, 4>;
}

impl SchedulerConfig {
    /// The sampler of this configuration, with `num_steps` steps.
    ///
    /// # Errors
    /// When the configuration is not supported, or the schedule does not have so many steps.
    pub fn sampler<B: Backend>(
        &self,
        num_steps: usize,
    ) -> Result<Box<dyn Sampler<B>>, SchedulerError> {
        Ok(match self.class {
            SchedulerClass::Ddim => Box::new(Ddim::new(self, num_steps)?),
            SchedulerClass::Pndm => Box::new(Pndm::<B>::new(self, num_steps)?),
            SchedulerClass::DpmSolver => Box::new(DpmSolver::<B>::new(self, num_steps)?),
            SchedulerClass::Euler => Box::new(Euler::new(self, num_steps)?),
            SchedulerClass::UniPc => Box::new(UniPc::<B>::new(self, num_steps)?),
            SchedulerClass::Lcm => Box::new(Lcm::new(self, num_steps)?),
        })
    }
}
