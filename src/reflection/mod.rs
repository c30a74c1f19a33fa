//! The reflection module: exploration, reward, losses, and the training step.

pub mod discriminator;
pub mod exploration;
pub mod losses;
pub mod reward;
pub mod step;
