//! Keys and values of the tokens already read, one pair per layer.

use burn::tensor::{Tensor, backend::Backend};

/// Keys and values of every layer, each `[batch, key/value heads, tokens, head width]`.
#[derive(Debug, Clone)]
pub struct KeyValueCache<B: Backend> {
    layers: Vec<Option<(Tensor<B, 4>, Tensor<B, 4>)>>,
}

impl<B: Backend> KeyValueCache<B> {
    /// An empty cache for a network of `num_layers` layers.
    pub fn new(num_layers: usize) -> Self {
        Self {
            layers: vec![None; num_layers],
        }
    }

    /// A cache that holds given keys and values, a pair per layer, each `[batch, key/value heads, tokens, head width]`:
    /// a learned prefix. Keys are taken as they are, as if rotated already.
    pub fn starting_with(layers: Vec<(Tensor<B, 4>, Tensor<B, 4>)>) -> Self {
        Self {
            layers: layers.into_iter().map(Some).collect(),
        }
    }

    /// Tokens held.
    pub fn length(&self) -> usize {
        match self.layers.first() {
            Some(Some((keys, _))) => keys.dims()[2],
            _ => 0,
        }
    }

    /// Appends the keys and values of new tokens to one layer and returns all of them.
    pub(super) fn extend(
        &mut self,
        layer: usize,
        keys: Tensor<B, 4>,
        values: Tensor<B, 4>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let (keys, values) = match self.layers[layer].take() {
            Some((old_keys, old_values)) => (
                Tensor::cat(vec![old_keys, keys], 2),
                Tensor::cat(vec![old_values, values], 2),
            ),
            None => (keys, values),
        };
        self.layers[layer] = Some((keys.clone(), values.clone()));
        (keys, values)
    }

    /// Keeps only these rows of the batch, in this order.
    pub fn select_rows(&mut self, rows: Tensor<B, 1, burn::tensor::Int>) {
        for (keys, values) in self.layers.iter_mut().flatten() {
            *keys = keys.clone().select(0, rows.clone());
            *values = values.clone().select(0, rows.clone());
        }
    }
}
