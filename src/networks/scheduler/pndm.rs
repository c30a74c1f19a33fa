//! Pseudo numerical methods (Liu et al., 2022): Runge–Kutta steps to start with, or a repeated first step where they
//! are skipped (as Stable Diffusion does), then linear multistep ones. Source: diffusers `PNDMScheduler`.

use burn::tensor::{Tensor, backend::Backend};

use super::config::{SchedulerConfig, SchedulerError};
use super::noise_schedule::NoiseSchedule;
use super::prediction::PredictionType;
use super::sampler::{Sampler, StepNoise};
use super::timesteps::check_steps;

/// The multistep method reads four outputs: the Runge–Kutta method takes three steps before its first, four calls each.
const WARM_UP: usize = 4;

/// A sampler with its steps laid out and the outputs it remembers.
#[derive(Debug, Clone)]
pub struct Pndm<B: Backend> {
    timesteps: Vec<f64>,
    /// Calls of the Runge–Kutta method.
    num_warm_up_calls: usize,
    stride: usize,
    schedule: NoiseSchedule,
    final_alpha: f64,
    prediction_type: PredictionType,
    /// The last outputs, the newest last.
    outputs: Vec<Tensor<B, 4>>,
    /// The sample before a step of several calls.
    before: Option<Tensor<B, 4>>,
    /// The weighted sum of a Runge–Kutta step's outputs.
    sum: Option<Tensor<B, 4>>,
}

impl<B: Backend> Pndm<B> {
    /// `num_steps` sampling steps over the schedule of `config`.
    ///
    /// # Errors
    /// When the configuration is not supported, or the schedule does not have so many steps.
    pub fn new(config: &SchedulerConfig, num_steps: usize) -> Result<Self, SchedulerError> {
        let schedule = NoiseSchedule::new(config)?;
        let total = config.num_train_timesteps;
        let least = if config.skip_prk_steps { 1 } else { WARM_UP };
        check_steps(num_steps, least, total)?;
        let stride = total / num_steps;
        let steps: Vec<usize> = config
            .spaced(num_steps)
            .into_iter()
            .map(|t| t.round_ties_even() as usize)
            .collect();
        let mut timesteps = if config.skip_prk_steps {
            // The second step is asked twice: once to average with the first.
            let second = steps.get(1).copied();
            let mut all = steps;
            if let Some(second) = second {
                all.insert(1, second);
            }
            all
        } else {
            let mut calls = runge_kutta_calls(&steps, stride / 2);
            calls.extend(&steps[WARM_UP - 1..]);
            calls
        };
        // Half a stride on may lie beyond the schedule's end.
        timesteps.iter_mut().for_each(|t| *t = (*t).min(total - 1));
        Ok(Self {
            num_warm_up_calls: if config.skip_prk_steps {
                0
            } else {
                4 * (WARM_UP - 1)
            },
            timesteps: timesteps.into_iter().map(|t| t as f64).collect(),
            stride,
            final_alpha: if config.set_alpha_to_one {
                1.0
            } else {
                schedule.alpha_cumprod(0)
            },
            schedule,
            prediction_type: config.prediction_type,
            outputs: Vec::new(),
            before: None,
            sum: None,
        })
    }

    fn timestep(&self, index: usize) -> i64 {
        self.timesteps[index] as i64
    }

    /// One of the four calls of a Runge–Kutta step.
    fn warm_up(
        &mut self,
        output: Tensor<B, 4>,
        index: usize,
        sample: Tensor<B, 4>,
    ) -> Tensor<B, 4> {
        let half = (self.stride / 2) as i64;
        let to = self.timestep(index) - if index.is_multiple_of(2) { half } else { 0 };
        let from = self.timestep(index / 4 * 4);
        let weighted = |weight: f64| output.clone().mul_scalar(weight);
        let slope = match index % 4 {
            0 => {
                self.sum = Some(weighted(1.0 / 6.0));
                self.outputs.push(output.clone());
                self.before = Some(sample.clone());
                output
            }
            3 => match self.sum.take() {
                Some(sum) => sum + weighted(1.0 / 6.0),
                None => output,
            },
            _ => {
                self.sum = self.sum.take().map(|sum| sum + weighted(1.0 / 3.0));
                output
            }
        };
        let sample = self.before.clone().unwrap_or(sample);
        self.transfer(sample, slope, from, to)
    }

    /// One call of the multistep method.
    fn multistep(
        &mut self,
        output: Tensor<B, 4>,
        index: usize,
        mut sample: Tensor<B, 4>,
    ) -> Tensor<B, 4> {
        let stride = self.stride as i64;
        let mut from = self.timestep(index);
        let mut to = from - stride;
        if index == 1 {
            // The first step again, with the mean of both outputs.
            to = from;
            from += stride;
        } else {
            if self.outputs.len() > 3 {
                self.outputs.remove(0);
            }
            self.outputs.push(output.clone());
        }
        let earlier = |back: usize| self.outputs[self.outputs.len() - back].clone();
        let slope = match (self.outputs.len(), index) {
            (1, 1) => (output + earlier(1)).div_scalar(2.0),
            (1, _) => output,
            (2, _) => (earlier(1).mul_scalar(3.0) - earlier(2)).div_scalar(2.0),
            (3, _) => (earlier(1).mul_scalar(23.0) - earlier(2).mul_scalar(16.0)
                + earlier(3).mul_scalar(5.0))
            .div_scalar(12.0),
            _ => (earlier(1).mul_scalar(55.0) - earlier(2).mul_scalar(59.0)
                + earlier(3).mul_scalar(37.0)
                - earlier(4).mul_scalar(9.0))
            .div_scalar(24.0),
        };
        match index {
            0 => self.before = Some(sample.clone()),
            1 => sample = self.before.take().unwrap_or(sample),
            _ => {}
        }
        self.transfer(sample, slope, from, to)
    }

    /// The paper's equation 9: from one training step to another along `slope`.
    fn transfer(
        &self,
        sample: Tensor<B, 4>,
        slope: Tensor<B, 4>,
        from: i64,
        to: i64,
    ) -> Tensor<B, 4> {
        let last = self.schedule.num_train_timesteps() - 1;
        let alpha = |t: i64| match usize::try_from(t) {
            Ok(t) => self.schedule.least_signal(t.min(last)),
            Err(_) => self.final_alpha,
        };
        let (alpha, next) = (alpha(from), alpha(to));
        let noise = match self.prediction_type {
            PredictionType::VPrediction => {
                slope.mul_scalar(alpha.sqrt()) + sample.clone().mul_scalar((1.0 - alpha).sqrt())
            }
            _ => slope,
        };
        let scale = alpha * (1.0 - next).sqrt() + (alpha * (1.0 - alpha) * next).sqrt();
        sample.mul_scalar((next / alpha).sqrt()) - noise.mul_scalar((next - alpha) / scale)
    }
}

/// The training steps at which the Runge–Kutta method asks: each step, twice half a stride on, and where it leads.
fn runge_kutta_calls(steps: &[usize], half: usize) -> Vec<usize> {
    let mut calls = Vec::new();
    for pair in steps[..WARM_UP].windows(2) {
        calls.extend([pair[0], pair[1] + half, pair[1] + half, pair[1]]);
    }
    calls
}

impl<B: Backend> Sampler<B> for Pndm<B> {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        output: Tensor<B, 4>,
        index: usize,
        sample: Tensor<B, 4>,
        _noise: StepNoise<'_, B>,
    ) -> Tensor<B, 4> {
        if index < self.num_warm_up_calls {
            self.warm_up(output, index, sample)
        } else {
            self.multistep(output, index, sample)
        }
    }
}
