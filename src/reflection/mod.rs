//! The reflection module (paper Sec. 3.3): explore around the conditioning, let the ranking model judge the
//! images, and turn its reward into a gradient.
//!
//! [`step`] is the main path of the whole project. Saving, resuming and logging are `training`'s.

pub mod choice;
pub mod clock;
pub mod config;
pub mod direct;
pub mod discriminator;
pub mod exploration;
pub mod losses;
pub mod memory;
pub mod reward;
pub mod rollout;
pub mod step;

pub use config::{Exploration, ReflectionConfig, RewardGradient};
