//! What this program computes itself on the processor follows what the backend computes, and feels a small change.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, PaddingConfig2d, RmsNormConfig};
use burn::tensor::activation::{gelu, silu, softmax};
use burn::tensor::module::linear;
use burn::tensor::{Tensor, TensorData};
use ragar::nn::activation::{Activation, gated_gelu, gated_silu};
use ragar::nn::attention::{
    attend_tokens, biased_softmax, merge_heads, scaled_dot_product, split_heads,
};
use ragar::nn::convolution::{as_map, convolve, laid_out, shift_channels, to_map, to_tokens};
use ragar::nn::host::over_rows;
use ragar::nn::linear::by_rows;
use ragar::nn::norm::{group_norm, group_norm_silu, rms_norm};
use ragar::nn::product::product;
use ragar::nn::rotary::{Rotary, RotaryScaling};

use crate::support::{TestBackend, compare, device, devices};

fn numbers<const D: usize>(shape: [usize; D], seed: usize) -> Tensor<TestBackend, D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count)
        .map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 250.0 - 2.0)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

fn same<const D: usize>(name: &str, want: Tensor<TestBackend, D>, got: Tensor<TestBackend, D>) {
    compare(name, &want.into_data(), &got.into_data(), 1e-5, 1e-5);
}

fn differs<const D: usize>(want: Tensor<TestBackend, D>, got: Tensor<TestBackend, D>) {
    let worst = (want - got).abs().max().into_data().iter::<f32>().next();
    assert!(worst.is_some_and(|worst| worst > 1e-3), "{worst:?}");
}

fn layer(inputs: usize, outputs: usize, stride: usize) -> Conv2d<TestBackend> {
    let mut layer = Conv2dConfig::new([inputs, outputs], [3, 3])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .init(&device());
    layer.weight = layer
        .weight
        .map(|_| numbers([outputs, inputs, 3, 3], 1).mul_scalar(0.1));
    layer.bias = layer.bias.map(|bias| bias.map(|_| numbers([outputs], 2)));
    layer
}

#[test]
fn a_single_row_meets_keys_of_any_number() {
    const WIDTH: usize = 128;
    let list = |tensor: Tensor<TestBackend, 3>| -> Vec<f32> { tensor.into_data().iter().collect() };
    // The largest first: what a GPU chooses for it does not suit the others.
    for keys in [128, 120, 119, 65] {
        for rows in [1, 2] {
            let (query, key) = (numbers([3, rows, WIDTH], 1), numbers([3, keys, WIDTH], 2));
            let scores = product(query.clone(), key.clone().swap_dims(1, 2));
            let mixed = product(scores.clone().div_scalar(1e2), key.clone());
            let (query, key) = (list(query), list(key));
            let (scores, mixed) = (list(scores), list(mixed));
            for head in 0..3 {
                let key = &key[head * keys * WIDTH..(head + 1) * keys * WIDTH];
                for row in head * rows..(head + 1) * rows {
                    let query = &query[row * WIDTH..(row + 1) * WIDTH];
                    let want: Vec<f32> = key
                        .chunks(WIDTH)
                        .map(|key| query.iter().zip(key).map(|(a, b)| a * b).sum())
                        .collect();
                    let scores = &scores[row * keys..(row + 1) * keys];
                    for (place, (want, got)) in want.iter().zip(scores).enumerate() {
                        assert!(
                            (want - got).abs() < 1e-3,
                            "{keys} {row} {place}: {want} {got}"
                        );
                    }
                    for column in 0..WIDTH {
                        let shares = want.iter().zip(key.chunks(WIDTH));
                        let want: f32 = shares.map(|(share, key)| share / 1e2 * key[column]).sum();
                        let got = mixed[row * WIDTH + column];
                        assert!(
                            (want - got).abs() < 1e-3,
                            "{keys} {row} {column}: {want} {got}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn attention_over_tokens_follows_the_backend() {
    // Few keys are this program's own, many the backend's.
    for [batch, queries, keys, heads, width] in
        [[3, 17, 33, 4, 28], [2, 9, 77, 2, 8], [2, 4, 300, 2, 8]]
    {
        let query = numbers([batch, queries, heads * width], 1);
        let key = numbers([batch, keys, heads * width], 2);
        let value = numbers([batch, keys, heads * width], 3);
        let split = |tokens: &Tensor<TestBackend, 3>| split_heads(tokens.clone(), heads);
        let attended = scaled_dot_product(split(&query), split(&key), split(&value), None);
        let want = merge_heads(attended);
        let got = attend_tokens(query.clone(), key.clone(), value.clone(), heads);
        same("attention", want.clone(), got);
        let nudged = key.clone().slice_fill([0..1, 0..1, 0..1], 30.0);
        differs(want, attend_tokens(query, nudged, value, heads));
    }
}

#[test]
fn convolutions_of_single_cells_follow_the_backend() {
    for [batch, inputs, outputs, height, width] in
        [[3, 5, 11, 4, 6], [1, 16, 8, 8, 8], [2, 6, 4, 1, 1]]
    {
        let mut layer: Conv2d<TestBackend> =
            Conv2dConfig::new([inputs, outputs], [1, 1]).init(&device());
        layer.weight = layer.weight.map(|_| numbers([outputs, inputs, 1, 1], 1));
        layer.bias = layer.bias.map(|bias| bias.map(|_| numbers([outputs], 2)));
        let input = numbers([batch, inputs, height, width], 3);
        let want = layer.forward(input.clone());
        same("map to map", want.clone(), convolve(&layer, input.clone()));
        let tokens = laid_out(want.clone());
        same("map to tokens", tokens, to_tokens(&layer, input.clone()));
        let back = to_map(&layer, laid_out(input.clone()), [height, width]);
        same("tokens to map", want.clone(), back);

        let mut nudged = layer.clone();
        nudged.bias = nudged
            .bias
            .map(|bias| bias.map(|bias| bias.slice_fill([0..1], 9.0)));
        differs(want.clone(), convolve(&nudged, input.clone()));
        let mut bare = layer;
        bare.bias = None;
        same(
            "no bias",
            bare.forward(input.clone()),
            convolve(&bare, input),
        );
    }
}

/// CubeCL's backends once read a turned view of one cell wrongly, forward in one of these and backward in the other.
#[test]
fn gradients_go_through_maps_of_any_size() {
    let device = devices().train;
    for [height, width] in [[1, 1], [1, 2], [2, 3]] {
        let cells = height * width;
        let weights = numbers([2, cells, 6], 1);
        let map = Tensor::from_data(numbers([2, 6, height, width], 2).into_data(), &device);
        let map = map.require_grad();
        let there: Tensor<TestBackend, 3> =
            laid_out(map.clone()) * Tensor::from_data(weights.clone().into_data(), &device);
        let back = as_map(there, [height, width]);
        let gradients = back.sum().backward();
        let found = map.grad(&gradients).expect("a gradient");
        let want: Vec<f32> = weights.into_data().iter::<f32>().collect();
        let found: Vec<f32> = found.into_data().iter::<f32>().collect();
        for (at, found) in found.iter().enumerate() {
            let (row, channel, cell) = (at / cells / 6, at / cells % 6, at % cells);
            assert_eq!(
                *found,
                want[(row * cells + cell) * 6 + channel],
                "{cells} cells"
            );
        }
    }
}

#[test]
fn channels_are_shifted_image_by_image() {
    let map = numbers([3, 5, 2, 4], 1);
    for rows in [3, 1] {
        let shift = numbers([rows, 5], 2);
        let want = map.clone() + shift.clone().reshape([rows, 5, 1, 1]);
        same("shift", want.clone(), shift_channels(map.clone(), shift));
        let other = shift_channels(map.clone(), numbers([rows, 5], 3));
        differs(want, other);
    }
}

#[test]
fn convolutions_follow_the_backend() {
    for ([batch, inputs, outputs, height, width], stride) in [
        ([3, 5, 11, 9, 14], 1),
        ([1, 33, 8, 30, 64], 1),
        ([9, 16, 16, 4, 4], 1),
        ([2, 4, 6, 8, 8], 2),
    ] {
        let layer = layer(inputs, outputs, stride);
        let input = numbers([batch, inputs, height, width], 3);
        let want = layer.forward(input.clone());
        same("convolution", want.clone(), convolve(&layer, input.clone()));

        let mut nudged = layer.clone();
        nudged.weight = nudged.weight.map(|weight| weight.add_scalar(0.01));
        differs(want, convolve(&nudged, input.clone()));

        // A view of a larger tensor.
        let [.., view_height, _] = input.dims();
        let view = input.clone().swap_dims(2, 3).narrow(3, 1, view_height - 1);
        same("view", layer.forward(view.clone()), convolve(&layer, view));
    }
}

#[test]
fn group_norms_follow_the_backend() {
    let mut norm: GroupNorm<TestBackend> = GroupNormConfig::new(4, 12).init(&device());
    norm.gamma = norm.gamma.map(|gamma| gamma.map(|_| numbers([12], 1)));
    norm.beta = norm.beta.map(|beta| beta.map(|_| numbers([12], 2)));
    let input = numbers([3, 12, 7, 5], 3);
    let want = norm.forward(input.clone());
    same("norm", want.clone(), group_norm(&norm, input.clone()));
    let activated = group_norm_silu(&norm, input.clone());
    same("norm and SiLU", silu(want.clone()), activated);
    norm.gamma = norm
        .gamma
        .map(|gamma| gamma.map(|gamma| gamma.add_scalar(0.1)));
    differs(want, group_norm(&norm, input));
}

#[test]
fn activations_follow_the_backend() {
    let input = numbers([2, 9, 10], 1).mul_scalar(4.0);
    same(
        "GELU",
        gelu(input.clone()),
        Activation::Gelu.forward(input.clone()),
    );
    same(
        "SiLU",
        silu(input.clone()),
        Activation::Silu.forward(input.clone()),
    );
    let mut halves = input.clone().chunk(2, 2);
    let gate = halves.remove(1);
    let want = halves.remove(0) * gelu(gate);
    same("gated GELU", want.clone(), gated_gelu(input.clone()));
    differs(want, gated_gelu(input.clone().add_scalar(0.01)));
    let value = numbers([2, 9, 10], 2);
    let want = silu(input.clone()) * value.clone();
    let got = gated_silu(input.clone(), value.clone());
    same("gated SiLU", want.clone(), got);
    differs(want, gated_silu(input, value.add_scalar(0.01)));
}

#[test]
fn rms_norms_follow_the_backend() {
    let mut norm = RmsNormConfig::new(10).init::<TestBackend>(&device());
    norm.gamma = norm.gamma.map(|_| numbers([10], 1));
    let input = numbers([2, 9, 10], 2);
    let want = norm.forward(input.clone());
    same("norm", want.clone(), rms_norm(&norm, input.clone()));
    norm.gamma = norm.gamma.map(|gamma| gamma.add_scalar(0.1));
    differs(want, rms_norm(&norm, input));
}

#[test]
fn biased_softmax_follows_the_backend() {
    let scores = numbers([2, 3, 5, 19], 1).mul_scalar(3.0);
    for rows in [1, 2] {
        let bias = numbers([rows, 1, 5, 19], 2);
        let want = softmax(scores.clone().div_scalar(1.7) + bias.clone(), 3);
        let got = biased_softmax(scores.clone(), 1.7, bias.clone());
        same("softmax", want.clone(), got);
        differs(want, biased_softmax(scores.clone(), 1.6, bias));
    }
}

#[test]
fn rotations_are_those_of_the_definition_with_a_graph_and_without() {
    let rotary = Rotary::new(8, 10_000.0, RotaryScaling::None);
    let [batch, tokens, heads, width] = [2, 5, 3, 8];
    let states = numbers([batch, tokens, heads, width], 1);
    let values: Vec<f32> = states.to_data().iter::<f32>().collect();
    let turned = values.chunks(width).enumerate().flat_map(|(row, head)| {
        let position = (4 + row / heads % tokens) as f64;
        (0..width).map(move |place| {
            let pair = place % 4;
            let angle = position * 10_000f64.powf(-(pair as f64) / 4.0);
            let (real, imaginary) = (f64::from(head[pair]), f64::from(head[pair + 4]));
            let value = match place < 4 {
                true => real * angle.cos() - imaginary * angle.sin(),
                false => imaginary * angle.cos() + real * angle.sin(),
            };
            value as f32
        })
    });
    let want = TensorData::new(turned.collect::<Vec<f32>>(), [batch, tokens, heads, width]);
    let want = Tensor::from_data(want, &device());
    let plain = rotary.tables::<TestBackend>(4, 5, &devices().train);
    let prepared = plain.clone().with_heads(&[heads], states.dtype());
    for (name, tables) in [("with a graph", plain), ("prepared", prepared)] {
        let recorded = tables.rotate(Tensor::from_inner(states.clone()));
        same(name, want.clone(), recorded.inner());
    }
    let got = rotary.tables(4, 5, &device()).rotate(states.clone());
    same("without", want.clone(), got);
    differs(want, rotary.tables(5, 5, &device()).rotate(states));
}

#[test]
fn rows_come_back_in_order() {
    let input = numbers([7, 3], 1);
    let twice = over_rows(7, &device(), |rows| {
        input
            .clone()
            .narrow(0, rows.start, rows.len())
            .mul_scalar(2.0)
    });
    same("rows", input.clone().mul_scalar(2.0), twice);
}

#[test]
fn products_with_weights_as_they_lie_follow_the_backend() {
    let (weight, bias) = (numbers([11, 6], 1), numbers([11], 2));
    for rows in [1, 2, 5] {
        let input = numbers([2, rows, 6], 3).narrow(0, 0, if rows == 1 { 1 } else { 2 });
        let want = linear(
            input.clone(),
            weight.clone().transpose(),
            Some(bias.clone()),
        );
        let got = by_rows(input.clone(), weight.clone(), Some(bias.clone()));
        same("product", want.clone(), got);
        let nudged = weight.clone().add_scalar(0.01);
        differs(want, by_rows(input, nudged, Some(bias.clone())));
    }
}
