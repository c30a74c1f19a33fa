//! From items and histories to samples: where retrieval and keywords meet. All of it is frozen and computed
//! once per item or user, never inside a training loop. Trains nothing and draws nothing.

pub mod items;
pub mod samples;

pub use items::ItemFeatures;
pub use samples::{Preparation, PreparationConfig, PreparationError};
