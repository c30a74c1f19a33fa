//! Convolutions.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::{Tensor, backend::Backend};
use host_kernels::ConvolutionSizes;

use super::host;

/// `layer` over `input`: the same numbers as `layer.forward` to rounding, several times faster for 3×3 convolutions on the
/// processor; a 1×1 convolution is a matrix product there.
///
/// # Shapes
/// `[batch, in, height, width]` → `[batch, out, …]`.
pub fn convolve<B: Backend>(layer: &Conv2d<B>, input: Tensor<B, 4>) -> Tensor<B, 4> {
    if let Some(weight) = point_weight(layer, &input) {
        let [batch, _, height, width] = input.dims();
        let [outputs, _] = weight.dims();
        let map = weight.unsqueeze::<3>().matmul(input.flatten::<3>(2, 3));
        let map = map.reshape([batch, outputs, height, width]);
        return with_bias(layer, map);
    }
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

/// The cells of a map through a 1×1 convolution, as tokens: `[batch, in, height, width]` → `[batch, height · width, out]`.
pub fn to_tokens<B: Backend>(layer: &Conv2d<B>, map: Tensor<B, 4>) -> Tensor<B, 3> {
    let Some(weight) = point_weight(layer, &map) else {
        return laid_out(layer.forward(map));
    };
    let tokens = as_tokens(map).matmul(weight.transpose().unsqueeze::<3>());
    match &layer.bias {
        Some(bias) => tokens + bias.val().unsqueeze(),
        None => tokens,
    }
}

/// Tokens through a 1×1 convolution, as a map: `[batch, height · width, in]` → `[batch, out, height, width]`.
pub fn to_map<B: Backend>(
    layer: &Conv2d<B>,
    tokens: Tensor<B, 3>,
    [height, width]: [usize; 2],
) -> Tensor<B, 4> {
    let [batch, ..] = tokens.dims();
    let map = as_map(tokens.clone(), [height, width]);
    let Some(weight) = point_weight(layer, &map) else {
        return layer.forward(map);
    };
    let [outputs, _] = weight.dims();
    let map = weight.unsqueeze::<3>().matmul(tokens.swap_dims(1, 2));
    with_bias(layer, map.reshape([batch, outputs, height, width]))
}

/// The cells of a map as tokens: `[batch, channels, height, width]` → `[batch, height · width, channels]`.
///
/// A map of one cell is its token as it lies, here and in [`as_map`]. Turned, it would gain a dimension as a view whose last
/// dimension is 1 (here in the gradient), which CubeCL's backends in Burn 0.21 read wrongly (tracel-ai/burn#5071).
pub fn as_tokens<B: Backend>(map: Tensor<B, 4>) -> Tensor<B, 3> {
    let [batch, channels, height, width] = map.dims();
    match height * width {
        1 => map.reshape([batch, 1, channels]),
        _ => map.flatten::<3>(2, 3).swap_dims(1, 2),
    }
}

/// Tokens as the cells of a map: `[batch, height · width, channels]` → `[batch, channels, height, width]`.
pub fn as_map<B: Backend>(tokens: Tensor<B, 3>, [height, width]: [usize; 2]) -> Tensor<B, 4> {
    let [batch, cells, channels] = tokens.dims();
    let by_channel = match cells {
        1 => tokens,
        _ => tokens.swap_dims(1, 2),
    };
    by_channel.reshape([batch, channels, height, width])
}

/// The cells of a map as tokens, laid out anew: every addition to a transposed view would walk it number by number.
pub fn laid_out<B: Backend>(map: Tensor<B, 4>) -> Tensor<B, 3> {
    let [batch, channels, height, width] = map.dims();
    as_tokens(map)
        .reshape([batch * height * width, channels])
        .reshape([batch, height * width, channels])
}

/// A number more for every channel of every image: `map` `[batch, channels, height, width]`, `shift` `[batch, channels]`, or
/// `[1, channels]` for all images alike.
pub fn shift_channels<B: Backend>(map: Tensor<B, 4>, shift: Tensor<B, 2>) -> Tensor<B, 4> {
    let [rows, channels] = shift.dims();
    if !host::takes(&map) || !host::takes(&shift) {
        return map + shift.reshape([rows, channels, 1, 1]);
    }
    let (device, shape) = (map.device(), map.dims());
    let mut numbers = host::numbers(map);
    host_kernels::shift_channels(&mut numbers, shape[2] * shape[3], &host::numbers(shift));
    host::tensor(numbers, shape, &device)
}

/// The weight `[out, in]` of a 1×1 convolution that is a matrix product on this device.
fn point_weight<B: Backend>(layer: &Conv2d<B>, input: &Tensor<B, 4>) -> Option<Tensor<B, 2>> {
    let free = matches!(
        layer.padding,
        PaddingConfig2d::Valid | PaddingConfig2d::Explicit(0, 0, 0, 0)
    );
    let weight = layer.weight.val();
    let is_product = layer.kernel_size == [1, 1]
        && layer.stride == [1, 1]
        && layer.groups == 1
        && free
        && host::takes(input)
        && host::takes(&weight);
    let [outputs, inputs, ..] = weight.dims();
    is_product.then(|| weight.reshape([outputs, inputs]))
}

fn with_bias<B: Backend>(layer: &Conv2d<B>, map: Tensor<B, 4>) -> Tensor<B, 4> {
    match &layer.bias {
        Some(bias) => shift_channels(map, bias.val().unsqueeze()),
        None => map,
    }
}
