//! Drawing for held-out users on the way: is what training learns what users want?

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use crate::generation::preference::PreferenceModel;

/// Draws for held-out users and scores the drawings.
pub trait Validator<B: Backend> {
    /// Mean scores of `model` after `step` steps by name, such as `rank_change`; pictures are kept by the validator.
    ///
    /// # Errors
    /// A sentence.
    fn validate(
        &self,
        model: &PreferenceModel<B>,
        step: usize,
    ) -> Result<BTreeMap<String, f64>, String>;
}

/// The best validation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps taken by then.
    pub step: usize,
    /// Its score.
    pub score: f64,
}
