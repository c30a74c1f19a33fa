//! diffusion.

pub mod attention;
pub mod config;
pub mod resnet;
pub mod unet;
pub mod unet_blocks;
pub mod vae;
