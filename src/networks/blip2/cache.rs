//! The keys and values of tokens already read.

use burn::tensor::{Int, Tensor, backend::Backend};

/// Keys and values per layer, `[rows, heads, tokens, head width]`.
#[derive(Debug, Clone)]
pub struct KeyValueCache<B: Backend> {
    layers: Vec<Option<(Tensor<B, 4>, Tensor<B, 4>)>>,
}

impl<B: Backend> KeyValueCache<B> {
    /// An empty cache of a decoder with `num_layers` layers.
    pub fn new(num_layers: usize) -> Self {
        Self {
            layers: (0..num_layers).map(|_| None).collect(),
        }
    }

    /// Appends what layer `layer` computed for the new tokens; returns everything it has seen.
    pub(super) fn append(
        &mut self,
        layer: usize,
        key: Tensor<B, 4>,
        value: Tensor<B, 4>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let (key, value) = match self.layers[layer].take() {
            None => (key, value),
            Some((past_key, past_value)) => (
                Tensor::cat(vec![past_key, key], 2),
                Tensor::cat(vec![past_value, value], 2),
            ),
        };
        self.layers[layer] = Some((key.clone(), value.clone()));
        (key, value)
    }

    /// What layer `layer` kept, or else what `compute` gives, kept from now on.
    pub(super) fn once(
        &mut self,
        layer: usize,
        compute: impl FnOnce() -> (Tensor<B, 4>, Tensor<B, 4>),
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        self.layers[layer].get_or_insert_with(compute).clone()
    }

    /// Row `i` becomes what row `sources[i]` was: beams change places, die and multiply.
    pub(super) fn reorder(&mut self, sources: Tensor<B, 1, Int>) {
        for (key, value) in self.layers.iter_mut().flatten() {
            *key = key.clone().select(0, sources.clone());
            *value = value.clone().select(0, sources.clone());
        }
    }
}
