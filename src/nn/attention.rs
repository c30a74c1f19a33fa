//! Scaled dot-product attention over heads, shared by every network.

use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Tensor, activation::softmax, backend::Backend, module};
use host_kernels::{AttentionSizes, SoftmaxSizes};

use super::host;
use super::product::product;

/// What a masked score becomes: far below any real score, and still representable in 16-bit floats, so that a
/// row without any visible key gives the mean of the values instead of not-a-number.
const MASKED_SCORE: f32 = -3e4;

/// Keys up to which the processor's attention over tokens is this program's own. Measured up to the 77 of Stable Diffusion's
/// prompts (`docs/performance.md`); with a thousand it takes several times as long as LibTorch's, and one sequence keeps to one core.
const FEW_KEYS: usize = 80;

/// Attention over heads that stand side by side in a token, without a mask.
///
/// # Shapes
/// `query` `[batch, queries, heads · head width]`, `key` and `value` `[batch, keys, heads · head width]`; the result has the
/// shape of `query`.
pub fn attend_tokens<B: Backend>(
    query: Tensor<B, 3>,
    key: Tensor<B, 3>,
    value: Tensor<B, 3>,
    num_heads: usize,
) -> Tensor<B, 3> {
    let [_, keys, _] = key.dims();
    let plain = keys <= FEW_KEYS && [&query, &key, &value].into_iter().all(host::takes);
    if !plain {
        let heads = |tokens| split_heads(tokens, num_heads);
        return merge_heads(scaled_dot_product(
            heads(query),
            heads(key),
            heads(value),
            None,
        ));
    }
    let (device, shape) = (query.device(), query.dims());
    let [batch, queries, width] = shape;
    let sizes = AttentionSizes {
        batch,
        heads: num_heads,
        queries,
        keys,
        width: width / num_heads,
    };
    let attended = host_kernels::attend(
        sizes,
        &host::numbers(query),
        &host::numbers(key),
        &host::numbers(value),
    );
    host::tensor(attended, shape, &device)
}

/// `softmax(query · keyᵀ / √head width) · value`.
///
/// # Shapes
/// `query` `[batch, heads, queries, head width]`, `key` and `value` `[batch, heads, keys, head width]`,
/// `mask` `[batch or 1, heads or 1, queries or 1, keys]`, `true` where a query must NOT see a key;
/// the result has the shape of `query`.
///
/// Without a mask the backend's own kernel runs. With one the scores are materialised, because backends
/// disagree on what `true` means in a mask.
pub fn scaled_dot_product<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    mask: Option<Tensor<B, 4, Bool>>,
) -> Tensor<B, 4> {
    let Some(mask) = mask else {
        return module::attention(
            query,
            key,
            value,
            None,
            None,
            AttentionModuleOptions::default(),
        );
    };
    let [_, _, _, width] = query.dims();
    let scale = (width as f64).powf(-0.5);
    let scores = product(query.mul_scalar(scale), key.swap_dims(2, 3));
    let mask = mask.expand(scores.shape());
    product(softmax(scores.mask_fill(mask, MASKED_SCORE), 3), value)
}

/// `softmax(scores / divisor + bias)` over the keys, in f32 whatever the type of the scores.
///
/// # Shapes
/// `scores` `[batch, heads, queries, keys]` in and out, `bias` `[batch or 1, 1, queries, keys]` in f32.
pub fn biased_softmax<B: Backend>(
    scores: Tensor<B, 4>,
    divisor: f64,
    bias: Tensor<B, 4>,
) -> Tensor<B, 4> {
    if !host::takes(&scores) || !host::takes(&bias) {
        let dtype = scores.dtype();
        let scores = scores.div_scalar(divisor).cast(DType::F32) + bias;
        return softmax(scores, 3).cast(dtype);
    }
    let (device, shape) = (scores.device(), scores.dims());
    let [_, heads, queries, keys] = shape;
    let sizes = SoftmaxSizes {
        heads,
        queries,
        keys,
    };
    let mut values = host::numbers(scores);
    host_kernels::biased_softmax(
        &mut values,
        sizes,
        divisor.recip() as f32,
        &host::numbers(bias),
    );
    host::tensor(values, shape, &device)
}

/// `[batch, tokens, heads · head width]` → `[batch, heads, tokens, head width]`.
pub fn split_heads<B: Backend>(tokens: Tensor<B, 3>, num_heads: usize) -> Tensor<B, 4> {
    let [batch, length, width] = tokens.dims();
    tokens
        .reshape([batch, length, num_heads, width / num_heads])
        .swap_dims(1, 2)
}

/// `[batch, heads, tokens, head width]` → `[batch, tokens, heads · head width]`.
pub fn merge_heads<B: Backend>(heads: Tensor<B, 4>) -> Tensor<B, 3> {
    let [batch, num_heads, length, width] = heads.dims();
    heads
        .swap_dims(1, 2)
        .reshape([batch, length, num_heads * width])
}

/// The causal mask of `queries` positions that end a sequence of `keys`: `[1, 1, queries, keys]`, `true` where
/// the key lies after the query.
pub fn causal_mask<B: Backend>(
    queries: usize,
    keys: usize,
    device: &B::Device,
) -> Tensor<B, 4, Bool> {
    let offset = keys - queries;
    let hidden = (0..queries)
        .flat_map(|query| (0..keys).map(move |key| key > query + offset))
        .collect::<Vec<bool>>();
    Tensor::from_data(
        burn::tensor::TensorData::new(hidden, [1, 1, queries, keys]),
        device,
    )
}
