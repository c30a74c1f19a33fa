//! Convolutions.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::{Tensor, backend::Backend};
use host_kernels::ConvolutionSizes;

use super::host;

/// `layer` over `input`: the same numbers as `layer.forward` to rounding, several times faster for 3×3 convolutions on the
/// processor.
///
/// # Shapes
/// `[batch, in, height, width]` → `[batch, out, …]`.
pub fn convolve<B: Backend>(layer: &Conv2d<B>, input: Tensor<B, 4>) -> Tensor<B, 4> {
    let keeps_size = layer.kernel_size == [3, 3]
        && layer.stride == [1, 1]
        && layer.dilation == [1, 1]
        && layer.groups == 1
        && layer.padding == PaddingConfig2d::Explicit(1, 1, 1, 1);
    let weight = layer.weight.val();
    if !keeps_size || !host::takes(&input) || !host::takes(&weight) {
        return layer.forward(input);
    }
    let device = input.device();
    let [batch, inputs, height, width] = input.dims();
    let [outputs, ..] = weight.dims();
    let sizes = ConvolutionSizes {
        batch,
        inputs,
        outputs,
        height,
        width,
    };
    let bias = layer.bias.as_ref().map(|bias| host::numbers(bias.val()));
    let output = host_kernels::convolve(
        sizes,
        &host::numbers(input),
        &host::numbers(weight),
        bias.as_deref(),
    );
    host::tensor(output, [batch, outputs, height, width], &device)
}
