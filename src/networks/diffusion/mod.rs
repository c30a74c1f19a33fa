//! Latent diffusion: the autoencoder and the conditioned denoising network of Stable Diffusion 1.x, in the hub's
//! architecture and under its names. Knows nothing of schedulers, text encoders or files.

pub mod attention;
pub mod config;
pub mod resnet;
pub mod unet;
pub mod unet_blocks;
pub mod vae;

pub use config::{DiffusionConfigError, PerLevel, UNetConfig, VaeConfig};
pub use unet::UNet2DConditionModel;
pub use vae::{AutoencoderKl, LatentDistribution};
