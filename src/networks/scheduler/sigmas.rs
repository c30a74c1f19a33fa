//! Noise levels `σ = √((1 − ᾱ) / ᾱ)`, the scale on which the samplers of higher order work.

use super::config::{BetaSchedule, FinalSigma, Interpolation, SchedulerConfig, SchedulerError};
use super::noise_schedule::NoiseSchedule;
use super::timesteps::check_steps;

/// The exponent of Karras et al.
const RHO: f64 = 7.0;

/// Levels closer than this on the scale of λ are one: Karras levels may end at the very level that the last step leads
/// to, and a step of no length divides by it.
pub(super) const NO_DISTANCE: f64 = 1e-6;

/// One noise level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    /// Noise per unit of signal.
    pub sigma: f64,
    /// √ᾱ.
    pub signal: f64,
    /// √(1 − ᾱ).
    pub spread: f64,
    /// The logarithm of signal over spread.
    pub lambda: f64,
}

impl Level {
    fn new(sigma: f64) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self {
            sigma,
            signal,
            spread: sigma * signal,
            lambda: -sigma.ln(),
        }
    }
}

/// A sampler's steps with their noise levels; there is one level more, where the last step leads.
#[derive(Debug, Clone)]
pub(super) struct Levels {
    pub timesteps: Vec<f64>,
    pub levels: Vec<Level>,
}

/// The noise levels of all training steps, from the cleanest up.
struct Table {
    sigmas: Vec<f64>,
}

impl Levels {
    /// The levels of DPM-Solver++: between the steps, which are whole numbers.
    pub fn dpm_solver(config: &SchedulerConfig, num_steps: usize) -> Result<Self, SchedulerError> {
        let table = Table::new(config)?;
        let end = match config.lambda_min_clipped {
            None => table.sigmas.len(),
            Some(least) => table.sigmas.iter().filter(|s| -s.ln() >= least).count(),
        };
        check_steps(num_steps, 1, end)?;
        let steps = config.spaced_above_zero(num_steps, end);
        let (mut timesteps, sigmas) = table.layout(config, steps, num_steps, [None, None], None);
        let whole = match config.beta_schedule {
            BetaSchedule::SquaredCosine => f64::trunc,
            _ => f64::round_ties_even,
        };
        timesteps.iter_mut().for_each(|t| *t = whole(*t));
        Ok(Self::ending(config, timesteps, sigmas, table.sigmas[0]))
    }

    /// The levels of UniPC.
    pub fn unipc(config: &SchedulerConfig, num_steps: usize) -> Result<Self, SchedulerError> {
        let table = Table::new(config)?;
        check_steps(num_steps, 1, table.sigmas.len())?;
        let steps = config.spaced_above_zero(num_steps, table.sigmas.len());
        let bounds = [config.sigma_min, config.sigma_max];
        let (mut timesteps, sigmas) = table.layout(config, steps, num_steps, bounds, None);
        timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        let cleanest = match (config.use_karras_sigmas, sigmas.last()) {
            (true, Some(sigma)) => *sigma,
            _ => table.sigmas[0],
        };
        Ok(Self::ending(config, timesteps, sigmas, cleanest))
    }

    /// The levels of Euler's method, whose steps may be fractions.
    pub fn euler(config: &SchedulerConfig, num_steps: usize) -> Result<Self, SchedulerError> {
        let table = Table::new(config)?;
        check_steps(num_steps, 1, table.sigmas.len())?;
        let steps = config.spaced(num_steps);
        let bounds = [config.sigma_min, config.sigma_max];
        let between = match config.interpolation_type {
            Interpolation::Linear => steps.iter().map(|&t| table.at(t)).collect(),
            Interpolation::LogLinear => {
                let ends = [table.sigmas[0], table.sigmas[table.sigmas.len() - 1]];
                exponential(ends, num_steps + 1)
            }
        };
        let (timesteps, sigmas) = table.layout(config, steps, num_steps, bounds, Some(between));
        Ok(Self::ending(config, timesteps, sigmas, table.sigmas[0]))
    }

    fn ending(
        config: &SchedulerConfig,
        timesteps: Vec<f64>,
        mut sigmas: Vec<f64>,
        cleanest: f64,
    ) -> Self {
        sigmas.push(match config.final_sigmas_type {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => cleanest,
        });
        Self {
            timesteps,
            levels: sigmas.into_iter().map(Level::new).collect(),
        }
    }
}

impl Table {
    fn new(config: &SchedulerConfig) -> Result<Self, SchedulerError> {
        let schedule = NoiseSchedule::new(config)?;
        let sigmas = (0..schedule.num_train_timesteps())
            .map(|t| {
                let alpha = schedule.least_signal(t);
                ((1.0 - alpha) / alpha).sqrt()
            })
            .collect();
        Ok(Self { sigmas })
    }

    /// Steps and levels: those of `steps` (`between`, where given), or as many over the whole range, respaced.
    fn layout(
        &self,
        config: &SchedulerConfig,
        steps: Vec<f64>,
        num_steps: usize,
        [least, most]: [Option<f64>; 2],
        between: Option<Vec<f64>>,
    ) -> (Vec<f64>, Vec<f64>) {
        let range = between.as_ref().map_or(
            [self.sigmas[0], self.sigmas[self.sigmas.len() - 1]],
            |levels| [levels[levels.len() - 1], levels[0]],
        );
        let range = [least.unwrap_or(range[0]), most.unwrap_or(range[1])];
        if !config.use_karras_sigmas {
            let each = || steps.iter().map(|&t| self.at(t)).collect();
            let levels = between.unwrap_or_else(each);
            return (steps, levels);
        }
        let levels = karras(range, num_steps);
        (levels.iter().map(|&s| self.step_of(s)).collect(), levels)
    }

    /// The level at a training step, linear between whole ones.
    fn at(&self, timestep: f64) -> f64 {
        let low = timestep.floor().max(0.0) as usize;
        let last = self.sigmas.len() - 1;
        if low >= last {
            return self.sigmas[last];
        }
        let part = timestep - low as f64;
        self.sigmas[low] + part * (self.sigmas[low + 1] - self.sigmas[low])
    }

    /// The training step of a level, linear between whole ones in the level's logarithm.
    fn step_of(&self, sigma: f64) -> f64 {
        let place = sigma.max(1e-10).ln();
        let below = self.sigmas.iter().filter(|s| s.ln() <= place).count();
        let low = below.saturating_sub(1).min(self.sigmas.len().max(2) - 2);
        let (from, to) = match self.sigmas.get(low + 1) {
            Some(next) => (self.sigmas[low].ln(), next.ln()),
            None => return 0.0,
        };
        low as f64 + ((from - place) / (from - to)).clamp(0.0, 1.0)
    }
}

/// `count` numbers from 0 to 1.
fn ramp(count: usize) -> impl Iterator<Item = f64> {
    let gaps = (count.max(2) - 1) as f64;
    (0..count).map(move |i| i as f64 / gaps)
}

/// Karras et al., equation 5, from the noisiest level down.
fn karras([least, most]: [f64; 2], count: usize) -> Vec<f64> {
    let (least, most) = (least.powf(1.0 / RHO), most.powf(1.0 / RHO));
    ramp(count)
        .map(|part| (most + part * (least - most)).powf(RHO))
        .collect()
}

/// Evenly spaced logarithms, from the noisiest level down.
fn exponential([least, most]: [f64; 2], count: usize) -> Vec<f64> {
    ramp(count)
        .map(|part| (most.ln() + part * (least.ln() - most.ln())).exp())
        .collect()
}
