//! What PMG trains: a prefix, soft tokens, and a linear layer.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::networks::llama::{ImageTokens, KeyValueCache, LlamaForCausalLm};

/// Deviation of the prefix's first values (as PEFT's embedding of prefixes is small beside keys).
const PREFIX_DEVIATION: f32 = 0.02;

/// Learned keys and values in front of every layer (P-Tuning v2, without its reparametrisation).
#[derive(Module, Debug)]
pub struct Prefix<B: Backend> {
    /// `[layers, key/value heads, prefix, head width]`
    pub keys: Param<Tensor<B, 4>>,
    /// As `keys`.
    pub values: Param<Tensor<B, 4>>,
}

impl<B: Backend> Prefix<B> {
    fn new(shape: [usize; 4], random: &mut ChaCha8Rng, device: &Device<B>) -> Self {
        let normal = Normal::new(0.0f32, PREFIX_DEVIATION).expect("a deviation above zero");
        let mut draw = || {
            let count = shape.iter().product::<usize>();
            let values: Vec<f32> = (0..count).map(|_| normal.sample(random)).collect();
            Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
        };
        Self {
            keys: draw(),
            values: draw(),
        }
    }

    /// Tokens of the prefix.
    fn length(&self) -> usize {
        self.keys.lazy_shape().dims::<4>()[2]
    }

    /// A cache that begins with the prefix, for a batch.
    fn cache(&self, batch: usize) -> KeyValueCache<B> {
        let (keys, values) = (self.keys.val(), self.values.val());
        let [layers, heads, length, width] = keys.dims();
        let layer = |all: &Tensor<B, 4>, place: usize| {
            let own = all.clone().narrow(0, place, 1);
            own.expand([batch, heads, length, width])
        };
        KeyValueCache::starting_with(
            (0..layers)
                .map(|place| (layer(&keys, place), layer(&values, place)))
                .collect(),
        )
    }
}

/// From a user's words to the generator's conditioning, through a frozen language model.
#[derive(Module, Debug)]
pub struct SoftPreference<B: Backend> {
    /// In front of every layer.
    pub prefix: Prefix<B>,
    /// At the end of the prompt.
    pub soft_tokens: ImageTokens<B>,
    /// From states at the soft tokens to the conditioning's width.
    pub projection: Linear<B>,
}

impl<B: Backend> SoftPreference<B> {
    /// On the device of `llama`. The projection starts at zero: training starts from what the keywords draw.
    pub fn new(
        llama: &LlamaForCausalLm<B>,
        prefix_length: usize,
        num_soft_tokens: usize,
        width: usize,
        seed: u64,
    ) -> Self {
        let device = llama.model.embed_tokens.weight.val().device();
        let [layers, heads, head_width] = llama.key_value_shape();
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x0070_6d67);
        let shape = [layers, heads, prefix_length, head_width];
        Self {
            prefix: Prefix::new(shape, &mut random, &device),
            soft_tokens: ImageTokens::new(llama, num_soft_tokens, seed),
            projection: LinearConfig::new(llama.width(), width)
                .with_initializer(Initializer::Zeros)
                .init(&device),
        }
    }

    /// The conditioning: `global` with what the soft tokens say added to its last tokens. PMG appends them; here the
    /// conditioning keeps the length that the generator knows (ours).
    ///
    /// # Shapes
    /// `prompts`: token ids; `global` `[batch, Q, d]` → `[batch, Q, d]`.
    pub fn forward(
        &self,
        llama: &LlamaForCausalLm<B>,
        prompts: &[Vec<u32>],
        global: Tensor<B, 3>,
    ) -> Tensor<B, 3> {
        let device = global.device();
        let [batch, tokens, _] = global.dims();
        assert_eq!(prompts.len(), batch, "a prompt per conditioning");
        let soft = self.soft_tokens.count();
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let own = self.soft_tokens.ids(llama.vocabulary_size());
        let prefix = self.prefix.length();
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for prompt in prompts {
            let padding = longest - prompt.len();
            ids.extend(std::iter::repeat_n(0i64, padding));
            ids.extend(prompt.iter().chain(&own).map(|id| i64::from(*id)));
            mask.extend(std::iter::repeat_n(1i64, prefix));
            mask.extend(std::iter::repeat_n(0i64, padding));
            mask.extend(std::iter::repeat_n(1i64, prompt.len() + soft));
        }
        let integers = |values: Vec<i64>, width: usize| {
            Tensor::<B, 2, Int>::from_data(TensorData::new(values, [batch, width]), &device)
        };
        let length = longest + soft;
        let embedded = self.soft_tokens.embed(llama, integers(ids, length));
        let mask = integers(mask, prefix + length);
        let mut cache = self.prefix.cache(batch);
        let states = llama.forward_cached(embedded, Some(mask), &mut cache);
        let said = self.projection.forward(states.narrow(1, longest, soft));
        let head = global.clone().narrow(1, 0, tokens - soft);
        let tail = global.narrow(1, tokens - soft, soft) + said;
        Tensor::cat(vec![head, tail], 1)
    }
}
