//! Training of the tiny family on training pairs only.

pub mod augmentation;
pub mod captioner;
pub mod clip;
pub mod diffusion;
pub mod error;
pub mod extra;
pub mod initial;
pub mod language;
pub mod learner;
pub mod pixels;
pub mod recogniser;
pub mod trainer;
pub mod vae;

pub use augmentation::Augmentation;
pub use error::PretrainingError;
