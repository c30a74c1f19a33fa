//! What a frozen network computes most on a processor, over plain slices of f32: 3×3 convolutions, attention, norms, activations, softmax.
//!
//! It knows no tensor and no network. It is a crate of its own for two reasons: it holds all the unsafe code of vector
//! instructions, and it is compiled for speed where the crate above it is compiled for short waits.

mod activation;
mod attention;
mod convolution;
mod norm;
mod rotary;
mod softmax;
mod vector;

pub use activation::{gated_gelu, gated_silu, gelu, silu};
pub use attention::{AttentionSizes, attend};
pub use convolution::{ConvolutionSizes, convolve};
pub use norm::{GroupNormSizes, group_norm, rms_norm, shift_channels};
pub use rotary::rotate;
pub use softmax::{SoftmaxSizes, biased_softmax};
pub use vector::{Instructions, instructions};
