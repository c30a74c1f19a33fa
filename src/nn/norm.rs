//! Group norms, with the activation that follows them, and RMS norms.

use burn::nn::{GroupNorm, RmsNorm};
use burn::tensor::activation::silu;
use burn::tensor::{Tensor, backend::Backend};
use host_kernels::GroupNormSizes;

use super::host;
use super::precision::widened_norm;

/// `norm` of `input`, `[batch, channels, height, width]`; computed in f32 whatever both are stored in.
pub fn group_norm<B: Backend>(norm: &GroupNorm<B>, input: Tensor<B, 4>) -> Tensor<B, 4> {
    match on_host(norm, &input) {
        true => fused(norm, input, false),
        false => widened_norm(norm, input),
    }
}

/// `x · sigmoid(x)` of [`group_norm`].
pub fn group_norm_silu<B: Backend>(norm: &GroupNorm<B>, input: Tensor<B, 4>) -> Tensor<B, 4> {
    match on_host(norm, &input) {
        true => fused(norm, input, true),
        false => silu(widened_norm(norm, input)),
    }
}

/// `norm` of every token of `input`, `[batch, tokens, width]`; computed in f32 whatever it is stored in.
pub fn rms_norm<B: Backend>(norm: &RmsNorm<B>, input: Tensor<B, 3>) -> Tensor<B, 3> {
    let scale = norm.gamma.val();
    if !host::takes(&input) || !host::takes(&scale) {
        return norm.forward(input);
    }
    let (device, shape) = (input.device(), input.dims());
    let mut values = host::numbers(input);
    host_kernels::rms_norm(&mut values, &host::numbers(scale), norm.epsilon as f32);
    host::tensor(values, shape, &device)
}

fn on_host<B: Backend>(norm: &GroupNorm<B>, input: &Tensor<B, 4>) -> bool {
    let weights = [&norm.gamma, &norm.beta];
    host::takes(input)
        && weights.iter().all(|weight| {
            weight
                .as_ref()
                .is_some_and(|weight| host::takes(&weight.val()))
        })
}

/// One pass over memory where operation by operation takes ten, half of them number by number.
fn fused<B: Backend>(norm: &GroupNorm<B>, input: Tensor<B, 4>, silu: bool) -> Tensor<B, 4> {
    let (Some(scale), Some(shift)) = (&norm.gamma, &norm.beta) else {
        unreachable!("looked at before");
    };
    let (device, shape) = (input.device(), input.dims());
    let [_, channels, height, width] = shape;
    let sizes = GroupNormSizes {
        channels,
        groups: norm.num_groups,
        area: height * width,
    };
    let mut values = host::numbers(input);
    host_kernels::group_norm(
        &mut values,
        sizes,
        &host::numbers(scale.val()),
        &host::numbers(shift.val()),
        norm.epsilon as f32,
        silu,
    );
    host::tensor(values, shape, &device)
}
