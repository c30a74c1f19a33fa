//! Linear layers over sequences.

use burn::nn::Linear;
use burn::tensor::{Tensor, backend::Backend};

/// `layer` over every token: `[batch, tokens, in]` → `[batch, tokens, out]`.
///
/// The same numbers as `layer.forward`, by one matrix product instead of one per row of the batch: the gradient of the
/// weight is then one product too, where Burn would make one per row and add them up (on LibTorch's CPU 2.5 times
/// slower for short sequences).
pub fn over_tokens<B: Backend>(layer: &Linear<B>, tokens: Tensor<B, 3>) -> Tensor<B, 3> {
    let [batch, length, width] = tokens.dims();
    let flat = layer.forward(tokens.reshape([batch * length, width]));
    let [_, output] = flat.dims();
    flat.reshape([batch, length, output])
}
