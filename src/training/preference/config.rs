//! Settings of the training loop (none is in the paper).

use serde::{Deserialize, Serialize};

use crate::optimisation::{AdamWConfig, Schedule};

/// Settings of the training loop (none is in the paper).
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// Updates.
    pub steps: usize,
    /// `B`: users an update.
    pub batch_size: usize,
    /// Users that the language model reads at once: a number, `"whole"` for the batch, or `"auto"` for the most that the
    /// device's memory holds, which a probe finds.
    pub micro_batch: MicroBatch,
    /// Layers of the language model whose activations are kept at once; the others are computed again in the backward
    /// pass. 0 keeps all.
    pub segment_layers: usize,
    /// Prompts whose text states are kept on the device.
    pub remembered_prompts: usize,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// Decay of the moving average of what trains, which then is what is validated and saved; 0 switches it off.
    pub average_decay: f64,
    /// Seed of the initial weights, the order of users, and all noise.
    pub seed: u64,
    /// Steps between checkpoints.
    pub save_every: usize,
    /// Checkpoints kept, beside the best weights.
    pub keep: usize,
    /// Drawing for held-out users on the way.
    pub validation: ValidationConfig,
    /// When a run is stopped from ruining itself.
    pub guards: GuardConfig,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            steps: 200,
            batch_size: 4,
            micro_batch: MicroBatch::default(),
            segment_layers: 0,
            remembered_prompts: 4096,
            schedule: Schedule {
                learning_rate: 3e-4,
                warmup_steps: 10,
                ..Schedule::default()
            },
            optimizer: AdamWConfig::default(),
            average_decay: 0.0,
            seed: 0,
            save_every: 50,
            keep: 2,
            validation: ValidationConfig::default(),
            guards: GuardConfig::default(),
        }
    }
}

/// How much of a batch the language model reads at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MicroBatch {
    /// So many users.
    Users(usize),
    /// A rule.
    Rule(MicroBatchRule),
}

impl Default for MicroBatch {
    fn default() -> Self {
        Self::Rule(MicroBatchRule::Whole)
    }
}

/// A micro-batch that is not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MicroBatchRule {
    /// The whole batch.
    Whole,
    /// The most that fits, found by trying.
    Auto,
}

/// Drawing for held-out users while training.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationConfig {
    /// Steps between validations; 0 for none. The untrained model is validated too.
    pub every: usize,
    /// Users of the validation split, the first so many.
    pub users: usize,
    /// Users whose pictures are kept.
    pub pictures: usize,
    /// The score by which the best weights are chosen; larger is better.
    pub metric: String,
    /// Validations without a better one after which training stops; 0 for never.
    pub patience: usize,
}

impl Default for ValidationConfig {
    fn default() -> Self {
        Self {
            every: 0,
            users: 16,
            pictures: 4,
            metric: "rank_change".into(),
            patience: 0,
        }
    }
}

/// When a run is rolled back, and when a warning is given.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// Rollbacks after which the run stops. Each goes back to the newest checkpoint, leaves the offending batch out from
    /// then on, and multiplies the learning rate by `rollback_rate`.
    pub max_rollbacks: usize,
    /// What a rollback multiplies the learning rate by.
    pub rollback_rate: f64,
    /// The gradients' norm counts as diverging beyond so many times its running mean; 0 switches this off.
    pub divergence_factor: f64,
    /// Diverging steps in a row that make a rollback.
    pub divergence_steps: usize,
    /// Advantages deviate by less than this: nothing is learnt from the reward.
    pub min_advantage_deviation: f32,
    /// A token of `E_gen` is longer or shorter than one of real prompts by more than this factor.
    pub conditioning_drift: f32,
    /// The reward rises while the semantic loss has grown by this share of what it was.
    pub semantic_loss_growth: f32,
    /// Steps in a row that make an alarm.
    pub alarm_steps: usize,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            max_rollbacks: 3,
            rollback_rate: 0.5,
            divergence_factor: 100.0,
            divergence_steps: 5,
            min_advantage_deviation: 1e-6,
            conditioning_drift: 2.0,
            semantic_loss_growth: 0.25,
            alarm_steps: 10,
        }
    }
}

impl TrainingConfig {
    /// Refuses values without a meaning, with the reason.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        for (key, value) in [
            ("batch_size", self.batch_size),
            ("save_every", self.save_every),
            ("guards.divergence_steps", self.guards.divergence_steps),
            ("guards.alarm_steps", self.guards.alarm_steps),
        ] {
            if value == 0 {
                return Err(format!("{key} = 0: give at least 1"));
            }
        }
        if self.micro_batch == MicroBatch::Users(0) {
            return Err("micro_batch = 0: give at least 1, \"whole\" or \"auto\"".into());
        }
        if self.validation.every > 0 && self.validation.users == 0 {
            return Err("validation.users = 0: give at least 1, or validation.every = 0".into());
        }
        if !(0.0..1.0).contains(&self.average_decay) {
            let decay = self.average_decay;
            return Err(format!(
                "average_decay = {decay} must be at least 0 and below 1"
            ));
        }
        let rate = self.schedule.learning_rate;
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(format!("schedule.learning_rate = {rate} must be above 0"));
        }
        let rate = self.guards.rollback_rate;
        if !(rate > 0.0 && rate <= 1.0) {
            return Err(format!(
                "guards.rollback_rate = {rate} must be above 0 and at most 1"
            ));
        }
        Ok(())
    }
}
