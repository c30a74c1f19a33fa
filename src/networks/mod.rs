//! The networks as Burn modules, in the hub's architectures and under its names. No file access.

pub mod blip2;
pub mod clip;
pub mod diffusion;
pub mod inception;
pub mod llama;
pub mod lpips;
pub mod recogniser;
pub mod scheduler;
