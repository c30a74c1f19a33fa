//! Where a network meets a file: hub folders in, loaded networks out.

pub mod blip2;
pub mod clip;
pub mod diffusion;
pub mod folder;
pub mod hub;
mod hub_files;
pub mod inception;
pub mod llama;
pub mod lpips;
pub mod recogniser;
pub mod textual_inversion;
