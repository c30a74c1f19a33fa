//! Training that cannot go on.

use std::path::PathBuf;

use crate::networks::scheduler::SchedulerError;
use crate::optimisation::CheckpointError;
use crate::optimisation::parameters::ParameterError;

/// Training that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// No user to train on.
    #[error("there is no training sample: histories.jsonl has no line with split \"train\"")]
    Empty,
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint does not fit the model.
    #[error("the checkpoint does not fit: {0}")]
    Parameter(#[from] ParameterError),
    /// A checkpoint whose state means nothing here.
    #[error(
        "{path}: {source}; it was written by another version: finish the run with that one, or start in a new folder"
    )]
    State {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// A log, a replay file or the best weights cannot be written.
    #[error(
        "{path}: {source}; the newest checkpoint is whole: make room and run the same command again"
    )]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The generator's schedule refuses `reflection.num_steps`.
    #[error("reflection.num_steps: {0}")]
    Scheduler(#[from] SchedulerError),
    /// Drawing for validation failed.
    #[error("validation after step {step}: {reason}")]
    Validation { step: usize, reason: String },
    /// The configured score is none that validation gives.
    #[error("training.validation.metric = \"{metric}\" is not among the scores here: {known}")]
    Metric { metric: String, known: String },
    /// Not even one sample fits into memory.
    #[error(
        "training.micro_batch = \"auto\": not even one sample fits into the device's memory ({reason}): \
         lower preference.max_prompt_tokens, or set training.segment_layers = 1"
    )]
    Memory { reason: String },
    /// A run that ruins itself again and again.
    #[error(
        "step {step}: {reason}, after {rollbacks} rollbacks; users {users}. The batch is in {replay}, the last good \
         checkpoint in {folder}: look at these users' data, or lower training.schedule.learning_rate and run again"
    )]
    Diverged {
        step: usize,
        reason: String,
        rollbacks: usize,
        users: String,
        replay: PathBuf,
        folder: PathBuf,
    },
}
