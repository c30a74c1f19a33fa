//! Training of the tiny family on training pairs only.

pub mod captioner;
pub mod clip;
pub mod diffusion;
pub mod language;
pub mod vae;
