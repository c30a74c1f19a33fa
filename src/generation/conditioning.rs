//! Prompts as the generator's text encoder sees them.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};

/// The generator's text encoder.
pub trait TextEncoder<B: Backend> {
    /// The conditioning of each prompt.
    fn encode(&self, prompts: &[&str]) -> Conditioning<B>;

    /// From an end token's state to the joint space, `[d, joint]`; none where the encoder has no projection.
    fn projection(&self) -> Option<Tensor<B, 2>>;
}

/// Prompts as the generator's text encoder sees them.
#[derive(Debug, Clone)]
pub struct Conditioning<B: Backend> {
    /// `E_K`: last hidden states, `[batch, Q, d]`.
    pub states: Tensor<B, 3>,
    /// True where a token is padding, `[batch, Q]`.
    pub padding: Tensor<B, 2, Bool>,
    /// The end token's position, `[batch]`.
    pub ends: Tensor<B, 1, Int>,
}
