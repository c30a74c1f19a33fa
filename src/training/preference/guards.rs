//! Guards: numbers that tell a run is ruining itself, or learning to please the judge by other means.

use serde::{Deserialize, Serialize};

use super::config::GuardConfig;
use crate::reflection::step::Parts;

/// Weight of the past in running means.
const MEMORY: f64 = 0.95;

/// What the guards remember. Floats are kept as bits: a checkpoint in JSON must bring back the very same numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Guards {
    gradient_norm: Running,
    reward: Running,
    semantic: Running,
    /// Running means when the run was young, to compare with.
    first_reward: Running,
    first_semantic: Running,
    diverging: usize,
    /// Steps in a row for each alarm.
    silent: usize,
    drifting: usize,
    hacking: usize,
}

/// A mean that forgets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Running {
    bits: u64,
    count: u64,
}

impl Running {
    fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }

    fn add(&mut self, value: f64) {
        let weight = MEMORY.min(self.count as f64 / (self.count + 1) as f64);
        self.bits = (self.value() * weight + value * (1.0 - weight)).to_bits();
        self.count += 1;
    }
}

/// What the guards say of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Go on; sentences of alarms that begin now, with a word for each.
    Good(Vec<(&'static str, String)>),
    /// Go back, for this reason.
    Ruined(String),
}

impl Guards {
    /// Looks at a step before its update is taken.
    pub fn look(&mut self, config: &GuardConfig, parts: &Parts, gradient_norm: f32) -> Verdict {
        for (name, value) in [
            ("reward", parts.reward),
            ("rank loss", parts.rank),
            ("calibration loss", parts.calibration),
            ("semantic loss", parts.semantic),
            ("loss", parts.loss),
            ("gradients' norm", gradient_norm),
        ] {
            if !value.is_finite() {
                return Verdict::Ruined(format!("the {name} is {value}"));
            }
        }
        if let Some(reason) = self.diverges(config, f64::from(gradient_norm)) {
            return Verdict::Ruined(reason);
        }
        Verdict::Good(self.alarms(config, parts))
    }

    fn diverges(&mut self, config: &GuardConfig, norm: f64) -> Option<String> {
        let usual = self.gradient_norm.value();
        let known = self.gradient_norm.count >= config.alarm_steps as u64;
        if config.divergence_factor > 0.0 && known && norm > config.divergence_factor * usual {
            self.diverging += 1;
            // What diverges does not become the measure.
            return (self.diverging >= config.divergence_steps).then(|| {
                format!(
                    "the gradients' norm has been more than {} times its mean {usual:.3e} for {} steps, now {norm:.3e}",
                    config.divergence_factor, self.diverging
                )
            });
        }
        self.diverging = 0;
        self.gradient_norm.add(norm);
        None
    }

    fn alarms(&mut self, config: &GuardConfig, parts: &Parts) -> Vec<(&'static str, String)> {
        let (reward, semantic) = (f64::from(parts.reward), f64::from(parts.semantic));
        self.reward.add(reward);
        self.semantic.add(semantic);
        if self.first_reward.count < config.alarm_steps as u64 {
            self.first_reward.add(reward);
            self.first_semantic.add(semantic);
        }
        let mut alarms = Vec::new();
        let explores = parts.advantage_deviation != 0.0 || parts.reward != 0.0;
        let silent = explores && parts.advantage_deviation < config.min_advantage_deviation;
        if begins(silent, &mut self.silent, config.alarm_steps) {
            alarms.push((
                "silent-reward",
                format!(
                    "advantages deviate by {:.1e} only: the judge does not tell the images apart; raise reflection.sigma",
                    parts.advantage_deviation
                ),
            ));
        }
        let ratio = parts.conditioning_norm / parts.keyword_norm.max(f32::MIN_POSITIVE);
        let bound = config.conditioning_drift.max(1.0);
        let drifting = parts.keyword_norm > 0.0 && !(1.0 / bound..=bound).contains(&ratio);
        if begins(drifting, &mut self.drifting, config.alarm_steps) {
            alarms.push((
                "conditioning-drift",
                format!(
                    "tokens of E_gen are {ratio:.2} times as long as those of real prompts: the generator is led where it \
                     was never trained; lower training.schedule.learning_rate or raise reflection.calibration_weight"
                ),
            ));
        }
        let grown = self.semantic.value()
            > self.first_semantic.value() * f64::from(1.0 + config.semantic_loss_growth);
        let hacking = self.reward.value() > self.first_reward.value() && grown;
        if begins(hacking, &mut self.hacking, config.alarm_steps) {
            alarms.push((
                "reward-hacking",
                format!(
                    "the reward rises ({:.4}, at first {:.4}) while the semantic loss has grown ({:.4}, at first {:.4}): \
                     images may please the judge without showing the reference; raise reflection.semantic_weight",
                    self.reward.value(),
                    self.first_reward.value(),
                    self.semantic.value(),
                    self.first_semantic.value()
                ),
            ));
        }
        alarms
    }
}

/// Counts steps in a row; true when the count reaches `steps`.
fn begins(holds: bool, count: &mut usize, steps: usize) -> bool {
    *count = if holds { *count + 1 } else { 0 };
    *count == steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            loss: 1.0,
            semantic: 1.0,
            reward: -1.0,
            advantage_deviation: 0.1,
            conditioning_norm: 1.0,
            keyword_norm: 1.0,
            ..Parts::default()
        }
    }

    fn config() -> GuardConfig {
        GuardConfig {
            alarm_steps: 3,
            divergence_steps: 2,
            ..GuardConfig::default()
        }
    }

    fn words(verdict: Verdict) -> Vec<&'static str> {
        match verdict {
            Verdict::Good(alarms) => alarms.into_iter().map(|(word, _)| word).collect(),
            Verdict::Ruined(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn a_number_that_is_none_ruins_a_step() {
        for (name, bad) in [
            (
                "semantic",
                Parts {
                    semantic: f32::NAN,
                    ..parts()
                },
            ),
            (
                "reward",
                Parts {
                    reward: f32::INFINITY,
                    ..parts()
                },
            ),
        ] {
            let verdict = Guards::default().look(&config(), &bad, 1.0);
            assert!(
                matches!(&verdict, Verdict::Ruined(reason) if reason.contains(name)),
                "{verdict:?}"
            );
        }
        let verdict = Guards::default().look(&config(), &parts(), f32::NAN);
        assert!(matches!(&verdict, Verdict::Ruined(reason) if reason.contains("norm")));
    }

    #[test]
    fn gradients_that_stay_huge_ruin_a_run_and_a_spike_does_not() {
        let mut guards = Guards::default();
        for _ in 0..5 {
            assert!(words(guards.look(&config(), &parts(), 1.0)).is_empty());
        }
        for norm in [1e4, 1.0, 1e4] {
            assert!(words(guards.look(&config(), &parts(), norm)).is_empty());
        }
        let verdict = guards.look(&config(), &parts(), 1e4);
        assert!(matches!(verdict, Verdict::Ruined(_)), "{verdict:?}");
    }

    #[test]
    fn alarms_are_given_once_when_they_begin() {
        let cases = [
            (
                "silent-reward",
                Parts {
                    advantage_deviation: 0.0,
                    ..parts()
                },
            ),
            (
                "conditioning-drift",
                Parts {
                    conditioning_norm: 2.5,
                    ..parts()
                },
            ),
        ];
        for (word, bad) in cases {
            let mut guards = Guards::default();
            let said: Vec<_> = (0..6)
                .map(|_| words(guards.look(&config(), &bad, 1.0)))
                .collect();
            let expected: [&[&str]; 6] = [&[], &[], &[word], &[], &[], &[]];
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn a_reward_that_rises_at_the_cost_of_meaning_is_told() {
        let mut guards = Guards::default();
        for _ in 0..10 {
            assert!(words(guards.look(&config(), &parts(), 1.0)).is_empty());
        }
        let hacked = Parts {
            reward: 1.0,
            semantic: 3.0,
            ..parts()
        };
        let said: Vec<_> = (0..20)
            .flat_map(|_| words(guards.look(&config(), &hacked, 1.0)))
            .collect();
        assert_eq!(said, ["reward-hacking"]);
    }

    #[test]
    fn a_run_without_exploration_is_not_blamed_for_its_silence() {
        let mut guards = Guards::default();
        let quiet = Parts {
            reward: 0.0,
            advantage_deviation: 0.0,
            ..parts()
        };
        for _ in 0..6 {
            assert!(words(guards.look(&config(), &quiet, 1.0)).is_empty());
        }
    }
}
