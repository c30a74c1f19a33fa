//! Key maps of known architectures: data, one file each.

pub mod blip2;
pub mod clip;
pub mod diffusion;
pub mod gguf;
pub mod inception;
pub mod llama;
pub mod lpips;
