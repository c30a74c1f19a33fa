//! What a frozen network computes most on a processor, over plain slices of f32: 3×3 convolutions, group norms, activations.
//!
//! It knows no tensor and no network. It is a crate of its own for two reasons: it holds all the unsafe code of vector
//! instructions, and it is compiled for speed where the crate above it is compiled for short waits.

mod activation;
mod convolution;
mod norm;
mod vector;

pub use activation::{gated_gelu, gelu, silu};
pub use convolution::{ConvolutionSizes, convolve};
pub use norm::{GroupNormSizes, group_norm};
pub use vector::{Instructions, instructions};
