//! Drawing for held-out users on the way: is what training learns what users want?

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use crate::generation::preference::PreferenceModel;

/// Draws for held-out users and scores the drawings.
pub trait Validator<B: Backend> {
    /// What `model` draws after `step` steps.
    ///
    /// # Errors
    /// A sentence.
    fn validate(&self, model: &PreferenceModel<B>, step: usize) -> Result<Validation, String>;
}

/// What held-out users would get.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Validation {
    /// Mean scores by name, such as `rank_change`.
    pub scores: BTreeMap<String, f64>,
    /// Drawings of the first users.
    pub pictures: Vec<EncodedPicture>,
}

/// A picture for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPicture {
    /// Whose it is.
    pub name: String,
    /// A PNG file.
    pub png: Vec<u8>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// The best validation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps taken by then.
    pub step: usize,
    /// Its score.
    pub score: f64,
}
