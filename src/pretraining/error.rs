//! What can go wrong while a network of the tiny family is trained.

use crate::networks::blip2::{Blip2ConfigError, Blip2Error};
use crate::networks::diffusion::DiffusionConfigError;
use crate::networks::llama::LlamaConfigError;
use crate::networks::recogniser::RecogniserConfigError;
use crate::networks::scheduler::SchedulerError;
use crate::optimisation::CheckpointError;
use crate::optimisation::parameters::ParameterError;
use crate::text::TokenizerError;
use crate::text::prompt::PromptError;

/// A training run that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum PretrainingError {
    /// The network's configuration cannot be built.
    #[error("network configuration: {0}")]
    Network(#[from] DiffusionConfigError),
    /// The recogniser's configuration cannot be built.
    #[error("recogniser: {0}")]
    Recogniser(#[from] RecogniserConfigError),
    /// The noise schedule cannot be built.
    #[error("scheduler configuration: {0}")]
    Scheduler(#[from] SchedulerError),
    /// The language model's configuration cannot be built.
    #[error("language model: {0}")]
    Language(#[from] LlamaConfigError),
    /// A prompt's template is wrong.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The captioner's configuration cannot be built.
    #[error("{0}")]
    Captioner(#[from] Blip2ConfigError),
    /// The captioner cannot take its input.
    #[error("captioner: {0}")]
    Caption(#[from] Blip2Error),
    /// No vocabulary can be learned.
    #[error("tokeniser: {0}")]
    Tokenizer(#[from] TokenizerError),
    /// A checkpoint cannot be written or taken up.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint does not fit the network.
    #[error("checkpoint: {0}")]
    Parameter(#[from] ParameterError),
    /// A report cannot be written.
    #[error("{path}: {source}")]
    File {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    /// The data cannot be trained on.
    #[error("training data: {0}")]
    Data(String),
    /// A setting out of range.
    #[error("`{key}` is {found}: it must be {expected}")]
    Setting {
        key: &'static str,
        found: String,
        expected: &'static str,
    },
    /// The loss left the numbers.
    #[error(
        "the loss is {loss} at step {step}: lower the learning rate or `max_gradient_norm`; \
         the checkpoint of step {last_checkpoint} is whole"
    )]
    NotFinite {
        step: usize,
        loss: f32,
        last_checkpoint: usize,
    },
}
