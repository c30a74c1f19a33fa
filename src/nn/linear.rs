//! Linear layers over sequences.

use burn::nn::Linear;
use burn::tensor::{Tensor, backend::Backend};

use super::host;
use super::product::product;

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

/// `input` through a weight that lies as in the hub's files, `[outputs, inputs]`: `[.., inputs]` → `[.., outputs]`.
///
/// Burn's own `linear` gives such a weight a batch dimension, which of a transposed view is a copy: laid out anew at every
/// call on the processor (75 times the product of one token), and kept by a graph beside the weight itself. Here all
/// tokens are one product with the view; several rows on the processor take it from the other side, as it lies.
pub fn by_rows<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, D> {
    let on_host = host::computes::<B>(&input.device());
    let mut shape = input.dims();
    let [outputs, inputs] = weight.dims();
    let rows = shape[..D - 1].iter().product::<usize>();
    let input = input.reshape([rows, inputs]);
    let output = match on_host && rows > 1 {
        true => weight.matmul(input.transpose()).transpose(),
        false => product(input, weight.transpose()),
    };
    shape[D - 1] = outputs;
    let output = output.reshape(shape);
    match bias {
        Some(bias) => output + bias.unsqueeze(),
        None => output,
    }
}
