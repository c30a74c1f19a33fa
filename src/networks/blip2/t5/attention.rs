//! T5's attention: scores without scaling, a bias for relative positions in their place.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Tensor, activation::softmax, backend::Backend};

use super::config::T5Config;
use super::position::Buckets;
use crate::networks::blip2::attention::split_heads;
use crate::networks::blip2::cache::KeyValueCache;
use crate::nn::product::product;

/// Attention to the tokens' own sequence or to the encoder's states.
#[derive(Module, Debug)]
pub struct T5Attention<B: Backend> {
    pub q: Linear<B>,
    pub k: Linear<B>,
    pub v: Linear<B>,
    pub o: Linear<B>,
    /// Held by the first layer of a stack, used by all of them.
    pub relative_attention_bias: Option<Embedding<B>>,
    #[module(skip)]
    buckets: Buckets,
    num_heads: usize,
}

impl<B: Backend> T5Attention<B> {
    pub(super) fn new(
        config: &T5Config,
        both_ways: bool,
        holds_bias: bool,
        device: &B::Device,
    ) -> Self {
        let inner = config.num_heads * config.d_kv;
        let linear = |from: usize, to: usize, deviation: f64| {
            LinearConfig::new(from, to)
                .with_bias(false)
                .with_initializer(normal(deviation))
                .init(device)
        };
        let width = config.d_model as f64;
        let table = EmbeddingConfig::new(config.relative_attention_num_buckets, config.num_heads)
            .with_initializer(normal(width.powf(-0.5)));
        Self {
            // The missing scale is in the first weights.
            q: linear(
                config.d_model,
                inner,
                (width * config.d_kv as f64).powf(-0.5),
            ),
            k: linear(config.d_model, inner, width.powf(-0.5)),
            v: linear(config.d_model, inner, width.powf(-0.5)),
            o: linear(inner, config.d_model, (inner as f64).powf(-0.5)),
            relative_attention_bias: holds_bias.then(|| table.init(device)),
            buckets: Buckets {
                num_buckets: config.relative_attention_num_buckets,
                max_distance: config.relative_attention_max_distance,
                both_ways,
            },
            num_heads: config.num_heads,
        }
    }

    /// The bias of the last `num_new` of `total` tokens, `[1, heads, new tokens, all tokens]`; none where no table is.
    pub(super) fn bias(&self, num_new: usize, total: usize) -> Option<Tensor<B, 4>> {
        let table = self.relative_attention_bias.as_ref()?;
        Some(self.buckets.bias(table, num_new, total))
    }

    /// The new tokens look at all tokens of their own sequence.
    ///
    /// # Shapes
    /// - states `[rows, new tokens, width]`, bias as [`bias`](Self::bias), hidden `[rows or 1, 1, new tokens, all tokens]`
    pub(super) fn look_back(
        &self,
        states: Tensor<B, 3>,
        bias: Option<Tensor<B, 4>>,
        hidden: Option<Tensor<B, 4, Bool>>,
        cache: Option<(&mut KeyValueCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let (mut key, mut value) = self.keys_and_values(states.clone());
        if let Some((cache, layer)) = cache {
            (key, value) = cache.append(layer, key, value);
        }
        self.attend(states, key, value, bias, hidden)
    }

    /// The tokens look at the encoder's states, whose keys and values are computed once where there is a cache.
    ///
    /// # Shapes
    /// - states `[rows, new tokens, width]`, seen `[rows, encoder tokens, width]`, hidden `[rows, 1, 1, encoder tokens]`
    pub(super) fn look_at(
        &self,
        states: Tensor<B, 3>,
        seen: &Tensor<B, 3>,
        hidden: Option<Tensor<B, 4, Bool>>,
        cache: Option<(&mut KeyValueCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let compute = || self.keys_and_values(seen.clone());
        let (key, value) = match cache {
            None => compute(),
            Some((cache, layer)) => cache.once(layer, compute),
        };
        self.attend(states, key, value, None, hidden)
    }

    fn keys_and_values(&self, seen: Tensor<B, 3>) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let key = split_heads(self.k.forward(seen.clone()), self.num_heads);
        (key, split_heads(self.v.forward(seen), self.num_heads))
    }

    fn attend(
        &self,
        states: Tensor<B, 3>,
        key: Tensor<B, 4>,
        value: Tensor<B, 4>,
        bias: Option<Tensor<B, 4>>,
        hidden: Option<Tensor<B, 4, Bool>>,
    ) -> Tensor<B, 3> {
        let query = split_heads(self.q.forward(states), self.num_heads);
        let [rows, heads, tokens, head_width] = query.dims();
        let mut scores = product(query, key.swap_dims(2, 3));
        if let Some(bias) = bias {
            scores = scores + bias;
        }
        if let Some(hidden) = hidden {
            let hidden = hidden.expand(scores.dims());
            scores = scores.mask_fill(hidden, f32::NEG_INFINITY);
        }
        let joined = product(softmax(scores, 3), value).swap_dims(1, 2);
        self.o
            .forward(joined.reshape([rows, tokens, heads * head_width]))
    }
}

pub(super) fn normal(deviation: f64) -> Initializer {
    Initializer::Normal {
        mean: 0.0,
        std: deviation,
    }
}
