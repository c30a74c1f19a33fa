//! The multistep DPM-Solver++ (Lu et al., 2022). Source: diffusers `DPMSolverMultistepScheduler`.

use burn::tensor::{Tensor, backend::Backend};

use super::config::{FinalSigma, SchedulerConfig, SchedulerError};
use super::prediction::{PredictionType, combine};
use super::sampler::{Sampler, StepNoise};
use super::sigmas::{Levels, NO_DISTANCE};

/// With fewer steps than these, the last ones read fewer outputs.
const FEW_STEPS: usize = 15;

/// A sampler with its steps laid out and the outputs it remembers.
#[derive(Debug, Clone)]
pub struct DpmSolver<B: Backend> {
    layout: Levels,
    prediction_type: PredictionType,
    order: usize,
    heun: bool,
    /// Does the last step read its own output only?
    plain_last: bool,
    /// Does the step before read two outputs at most?
    plain_before_last: bool,
    /// The last predictions of the clean sample, the newest first.
    clean: Vec<Tensor<B, 4>>,
}

impl<B: Backend> DpmSolver<B> {
    /// `num_steps` sampling steps over the schedule of `config`.
    ///
    /// # Errors
    /// When the configuration is not supported, or the schedule does not have so many steps.
    pub fn new(config: &SchedulerConfig, num_steps: usize) -> Result<Self, SchedulerError> {
        let layout = Levels::dpm_solver(config, num_steps)?;
        let few = config.lower_order_final && layout.timesteps.len() < FEW_STEPS;
        Ok(Self {
            layout,
            prediction_type: config.prediction_type,
            order: config.solver_order,
            heun: config.solver_type == "heun",
            plain_last: few
                || config.euler_at_final
                || config.final_sigmas_type == FinalSigma::Zero,
            plain_before_last: few,
            clean: Vec::new(),
        })
    }

    /// How many outputs the step of that index reads.
    fn order_at(&self, index: usize) -> usize {
        let left = self.layout.timesteps.len() - index;
        let order = match left {
            1 if self.plain_last => 1,
            2 if self.plain_before_last => self.order.min(2),
            _ => self.order,
        };
        order.min(self.clean.len())
    }
}

impl<B: Backend> Sampler<B> for DpmSolver<B> {
    fn timesteps(&self) -> &[f64] {
        &self.layout.timesteps
    }

    fn mixture(&self, index: usize) -> Option<[f64; 2]> {
        let level = self.layout.levels[index];
        Some([level.signal, level.spread])
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
        let weights = self.prediction_type.clean(here.signal, here.spread);
        self.clean.insert(0, combine(weights, &sample, &output));
        self.clean.truncate(self.order);
        let order = self.order_at(index);

        let h = next.lambda - here.lambda;
        if h.abs() < NO_DISTANCE {
            return sample;
        }
        let decay = (-h).exp_m1();
        let clean = &self.clean;
        let sample = sample.mul_scalar(next.spread / here.spread)
            - clean[0].clone().mul_scalar(next.signal * decay);
        if order == 1 {
            return sample;
        }
        // Slope and, of third order, curvature of the clean sample along λ.
        let distance = |back: usize| {
            let levels = &self.layout.levels[index - back..];
            (levels[1].lambda - levels[0].lambda) / h
        };
        let slope = |back: usize| {
            let change = clean[back - 1].clone() - clean[back].clone();
            change.div_scalar(distance(back))
        };
        let second = next.signal * (decay / h + 1.0);
        if order == 2 {
            let weight = if self.heun {
                second
            } else {
                -0.5 * next.signal * decay
            };
            return sample + slope(1).mul_scalar(weight);
        }
        let bend = slope(1) - slope(2);
        let reach = distance(1) + distance(2);
        let first = slope(1) + bend.clone().mul_scalar(distance(1) / reach);
        let third = next.signal * ((decay + h) / (h * h) - 0.5);
        sample + first.mul_scalar(second) - bend.mul_scalar(third / reach)
    }
}
