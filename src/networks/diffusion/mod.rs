//! Latent diffusion: the autoencoder and the conditioned denoising network of Stable Diffusion 1.x and 2.x
//! and their distilled kin, in the hub's architecture and under its names. Knows nothing of schedulers, text encoders or files.

pub mod attention;
mod conditions;
pub mod config;
pub mod resnet;
pub mod unet;
pub mod unet_blocks;
pub mod vae;
pub mod vae_config;

pub use conditions::{PromptStates, TimeStates};
pub use config::{DiffusionConfigError, PerLevel, UNetConfig};
pub use unet::UNet2DConditionModel;
pub use vae::{AutoencoderKl, LatentDistribution};
pub use vae_config::VaeConfig;
