//! Training of the preference model by reflection: a run that can be left alone.
//!
//! A run's folder holds `checkpoints/`, `metrics.jsonl` (a line a step), `validation.jsonl`, `events.jsonl` (what
//! happened: resumes, alarms, rollbacks), `tensorboard/`, `replay/` (batches that ruined a step) and `best.safetensors`.

mod config;
mod error;
mod guards;
mod log;
mod probe;
mod run;
mod sampler;
mod state;
mod validation;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::backend::AutodiffBackend;
use serde::Serialize;

use crate::generation::calibrator::Pool;
use crate::generation::sample::Sample;
use crate::optimisation::{Interrupt, Progress};
use crate::reflection::ReflectionConfig;
use crate::reflection::clock::Seconds;
use crate::reflection::direct::Differentiable;
use crate::reflection::rollout::Frozen;
use crate::reflection::step::Parts;

pub use config::{GuardConfig, MicroBatch, MicroBatchRule, TrainingConfig, ValidationConfig};
pub use error::TrainingError;
pub use guards::{Guards, Verdict};
pub use validation::{Best, EncodedPicture, Validation, Validator};

/// How a training loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done, or validation stopped getting better.
    Finished,
    /// Interrupted after a step, its state saved.
    Interrupted,
}

/// One line of the log.
#[derive(Debug, Clone, Serialize)]
pub struct StepRecord {
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f32,
    /// Losses and rewards.
    #[serde(flatten)]
    pub parts: Parts,
    /// Where the time went.
    #[serde(flatten)]
    pub seconds: Seconds,
}

/// A run of the training loop over `samples`.
pub struct PreferenceTraining<'a, B: AutodiffBackend> {
    /// The users to train on.
    pub samples: &'a [Sample],
    /// Everything that does not train.
    pub frozen: Frozen<'a, B::InnerBackend>,
    /// The frozen networks where a graph is recorded: the reward's own gradient takes the place of the policy's.
    pub differentiable: Option<Differentiable<'a, B>>,
    /// Settings of the loop.
    pub training: &'a TrainingConfig,
    /// Settings of the step.
    pub reflection: &'a ReflectionConfig,
    /// From `E_gen` to the vector of `L_cal`.
    pub pool: Pool,
    /// What else the numbers depend on by name: digests of the frozen networks. A checkpoint is taken up only where they
    /// are the same.
    pub origin: &'a BTreeMap<String, String>,
    /// Go on from a checkpoint of another configuration.
    pub accept_changes: bool,
    /// Where everything goes.
    pub folder: &'a Path,
    /// Draws for held-out users, where `training.validation.every` asks for it.
    pub validator: Option<&'a dyn Validator<B::InnerBackend>>,
    /// Ends the loop after the current step.
    pub interrupt: &'a Interrupt,
    /// Who watches.
    pub progress: &'a dyn Progress,
}
