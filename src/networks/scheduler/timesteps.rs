//! How a sampler's steps lie among the training steps. Source: the `set_timesteps` of diffusers' schedulers.

use super::config::{SchedulerConfig, SchedulerError, TimestepSpacing};

/// Refuses fewer than `least` steps, or more than `most`.
pub(super) fn check_steps(
    num_steps: usize,
    least: usize,
    most: usize,
) -> Result<(), SchedulerError> {
    if (least..=most).contains(&num_steps) {
        Ok(())
    } else {
        Err(SchedulerError::Steps {
            found: num_steps,
            least,
            most,
        })
    }
}

impl SchedulerConfig {
    /// `num_steps` training steps downwards, as DDIM, PNDM and Euler lay them: the last one is the schedule's first
    /// where both ends count. Linearly spaced ones are not rounded.
    pub(super) fn spaced(&self, num_steps: usize) -> Vec<f64> {
        let total = self.num_train_timesteps;
        let last = (total - 1) as f64;
        match self.timestep_spacing {
            TimestepSpacing::Leading => {
                let stride = total / num_steps;
                self.leading((0..num_steps).rev(), stride)
            }
            TimestepSpacing::Trailing => self.trailing(total, num_steps),
            TimestepSpacing::Linspace => {
                let gaps = (num_steps.max(2) - 1) as f64;
                let place = |i: usize| last * i as f64 / gaps;
                (0..num_steps).rev().map(place).collect()
            }
        }
    }

    /// As the solvers of higher order lay them: one step more, of which the last, nearest to the clean sample, is left
    /// out. `end` is the number of training steps that count.
    pub(super) fn spaced_above_zero(&self, num_steps: usize, end: usize) -> Vec<f64> {
        match self.timestep_spacing {
            TimestepSpacing::Leading => {
                let stride = end / (num_steps + 1);
                self.leading((1..=num_steps).rev(), stride)
            }
            TimestepSpacing::Trailing => self.trailing(end, num_steps),
            TimestepSpacing::Linspace => {
                let last = end.saturating_sub(1) as f64;
                let place = |i: usize| (last * i as f64 / num_steps as f64).round_ties_even();
                (1..=num_steps).rev().map(place).collect()
            }
        }
    }

    fn leading(&self, places: impl Iterator<Item = usize>, stride: usize) -> Vec<f64> {
        let last = self.num_train_timesteps - 1;
        places
            .map(|i| (i * stride + self.steps_offset).min(last) as f64)
            .collect()
    }

    fn trailing(&self, end: usize, num_steps: usize) -> Vec<f64> {
        let total = self.num_train_timesteps as f64;
        (0..num_steps)
            .map(|i| end as f64 - total * i as f64 / num_steps as f64)
            .take_while(|place| *place > 1e-6)
            .map(|place| (place.round_ties_even() - 1.0).max(0.0))
            .collect()
    }
}
