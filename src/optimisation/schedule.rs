//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// What the learning rate does after its warm-up.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Stays.
    Constant,
    /// Falls to `final_fraction` along half a cosine.
    #[default]
    Cosine,
}

/// A linear warm-up followed by a decay.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Learning rate at the end of the warm-up.
    pub learning_rate: f64,
    /// Steps from zero to the full rate.
    pub warmup_steps: usize,
    /// What follows.
    pub decay: Decay,
    /// Where a cosine ends, as a fraction of `learning_rate`.
    pub final_fraction: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            warmup_steps: 0,
            decay: Decay::Cosine,
            final_fraction: 0.05,
        }
    }
}

impl Schedule {
    /// The rate of step `step` (from 0) of `total`.
    pub fn rate(&self, step: usize, total: usize) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        match self.decay {
            Decay::Constant => self.learning_rate,
            Decay::Cosine => {
                let span = total.saturating_sub(self.warmup_steps).max(1);
                let place = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * place).cos());
                self.learning_rate * (self.final_fraction + (1.0 - self.final_fraction) * cosine)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_falls_to_the_final_fraction() {
        let schedule = Schedule {
            learning_rate: 2.0,
            warmup_steps: 4,
            decay: Decay::Cosine,
            final_fraction: 0.1,
        };
        let rates: Vec<f64> = [0, 3, 4, 52, 100].map(|s| schedule.rate(s, 100)).to_vec();
        let expected = [0.5, 2.0, 2.0, 1.1, 0.2];
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
    }
}
