//! What a method is to whoever compares methods: something that trains and draws.

use std::path::{Path, PathBuf};

use image::RgbImage;

use crate::data::history::History;
use crate::data::image::ImageError;
use crate::generation::sample::Sample;
use crate::networks::scheduler::SchedulerError;
use crate::optimisation::parameters::ParameterError;
use crate::optimisation::{CheckpointError, Interrupt, Progress};

/// For whom a reference is to be drawn. A method may look at all of it but the history's `target`.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The user's items and the reference.
    pub history: &'a History,
    /// What frozen networks make of them.
    pub sample: &'a Sample,
}

/// What stands around a training.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// The method's own folder: checkpoints, logs.
    pub folder: &'a Path,
    /// Ends a training after its current step.
    pub interrupt: &'a Interrupt,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// Does a method compete, or does it say what could be had, or what costs nothing?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    /// Competes.
    Contender,
    /// Draws from what no method knows.
    Ceiling,
    /// A picture that is there already.
    Floor,
}

/// A training that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum MethodError {
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint does not fit the method.
    #[error("the checkpoint does not fit: {0}")]
    Parameter(#[from] ParameterError),
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A picture to learn from cannot be used.
    #[error(transparent)]
    Picture(#[from] ImageError),
    /// The generator's noise schedule is refused.
    #[error(transparent)]
    Schedule(#[from] SchedulerError),
    /// Nothing to learn from.
    #[error("{method} has nothing to learn from: {wanted}")]
    Empty {
        /// The method.
        method: &'static str,
        /// What is missing.
        wanted: &'static str,
    },
    /// A setting that does not fit the networks.
    #[error("baselines.{key} = {value}: {reason}")]
    Setting {
        /// Under `[baselines]`.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        reason: String,
    },
    /// A loss that is no number.
    #[error(
        "step {step}: the loss is {loss}. The last good checkpoint is kept in {}: lower the learning rate and run again",
        folder.display()
    )]
    NotFinite {
        /// The step.
        step: usize,
        /// Its loss.
        loss: f32,
        /// Where checkpoints are.
        folder: PathBuf,
    },
    /// Stopped by the user, everything saved.
    #[error("interrupted after step {step}, all saved: run the same command again to go on")]
    Interrupted {
        /// Steps taken.
        step: usize,
    },
    /// The application's own: a method that is put together there.
    #[error("{reason}")]
    Unready {
        /// What to do first.
        reason: String,
    },
}

/// One picture that could not be drawn. Others are not concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// A picture of the data cannot be used.
    #[error("{0}")]
    Picture(String),
    /// The sampler refuses the settings.
    #[error("inference: {0}")]
    Schedule(String),
    /// The drawing holds values that are no numbers.
    #[error("the drawing holds values that are no finite numbers")]
    NotFinite,
    /// Nothing to take.
    #[error("the history is empty")]
    EmptyHistory,
    /// No item is left.
    #[error("the catalogue holds no item beside reference, history and held-out ones")]
    EmptyCatalogue,
    /// The right answer, which a ceiling draws from, is not known.
    #[error("the right answer is not known")]
    Unknown,
    /// The method was not trained for this user.
    #[error("nothing was learned for this user")]
    Untrained,
}

impl From<ImageError> for DrawError {
    fn from(error: ImageError) -> Self {
        Self::Picture(error.to_string())
    }
}

/// A method under comparison.
pub trait Method {
    /// The word on the command line and in files.
    fn name(&self) -> &'static str;

    /// The name in tables.
    fn label(&self) -> &'static str;

    /// Does it compete?
    fn kind(&self) -> MethodKind;

    /// Makes the method ready to draw for `requests`: trains, goes on with a training, or opens a finished one. What was
    /// trained for these requests in `watch.folder` before is not trained again. Unless said otherwise there is nothing to train.
    ///
    /// # Errors
    /// A training that cannot go on, or was interrupted.
    fn train(&mut self, _requests: &[Request<'_>], _watch: Watch<'_>) -> Result<(), MethodError> {
        Ok(())
    }

    /// A digest of everything that decides a picture beside user, reference and seed: weights and settings.
    fn fingerprint(&self) -> String;

    /// One picture per request, in order; a picture depends on its own request and `seed` alone.
    fn draw(&self, requests: &[Request<'_>], seed: u64) -> Vec<Result<RgbImage, DrawError>>;
}
