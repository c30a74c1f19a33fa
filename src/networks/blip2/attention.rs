//! Multi-head attention on projected states, shared by the three parts.

use burn::tensor::{Bool, Tensor, activation::softmax, backend::Backend};

use crate::nn::product::product;

/// Splits the width into heads: `[batch, tokens, width]` → `[batch, heads, tokens, width / heads]`.
pub(super) fn split_heads<B: Backend>(states: Tensor<B, 3>, num_heads: usize) -> Tensor<B, 4> {
    let [batch, tokens, width] = states.dims();
    states
        .reshape([batch, tokens, num_heads, width / num_heads])
        .swap_dims(1, 2)
}

/// `softmax(query · keyᵀ / √head_width) · value`, heads joined again: `[batch, query tokens, width]`.
///
/// # Shapes
/// - query `[batch, heads, query tokens, head width]`, key and value `[batch, heads, key tokens, head width]`
/// - hidden `[batch, 1, query tokens, key tokens]`: true where a query must not look
pub(super) fn attend<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    hidden: Option<Tensor<B, 4, Bool>>,
) -> Tensor<B, 3> {
    let [batch, heads, tokens, head_width] = query.dims();
    // Scaling the query first is OPT's order and costs less than scaling the scores.
    let query = query.mul_scalar((head_width as f64).powf(-0.5));
    let mut scores = product(query, key.swap_dims(2, 3));
    if let Some(hidden) = hidden {
        let hidden = hidden.expand(scores.dims());
        scores = scores.mask_fill(hidden, f32::NEG_INFINITY);
    }
    let joined = product(softmax(scores, 3), value).swap_dims(1, 2);
    joined.reshape([batch, tokens, heads * head_width])
}
