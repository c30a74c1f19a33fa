//! The new vocabulary entries `[IMG]`, as GILL adds them.

use burn::module::{Module, Param};
use burn::tensor::{DType, ElementConversion, Int, Tensor, TensorData, backend::Backend};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::model::LlamaForCausalLm;

/// Embeddings of the `[IMG]` tokens: a table of its own behind the vocabulary, so that training it
/// leaves the base table as it was.
///
/// The token `[IMG]_r` (r from 1) has the id `vocabulary size + r − 1`.
#[derive(Module, Debug)]
pub struct ImageTokens<B: Backend> {
    /// `[image tokens, width]`.
    pub weight: Param<Tensor<B, 2>>,
}

impl<B: Backend> ImageTokens<B> {
    /// Rows drawn from the mean and deviation of the base table, on its device; reading those waits for the device once.
    pub fn new(llama: &LlamaForCausalLm<B>, num_tokens: usize, seed: u64) -> Self {
        let table = llama.model.embed_tokens.weight.val().detach();
        // A deviation over millions of values is not for half precision.
        let table = table.cast(DType::F32);
        let width = llama.width();
        let mean = table.clone().mean_dim(0);
        let deviation: f64 = (table.clone() - mean.clone())
            .square()
            .mean()
            .sqrt()
            .into_scalar()
            .elem();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let values = normal_values(num_tokens * width, deviation, &mut random);
        let noise = Tensor::from_data(
            TensorData::new(values, [num_tokens, width]),
            &table.device(),
        );
        Self {
            weight: Param::from_tensor((mean + noise).detach()),
        }
    }

    /// Number of image tokens.
    pub fn count(&self) -> usize {
        self.weight.lazy_shape().dims::<2>()[0]
    }

    /// The ids of the image tokens behind a vocabulary of `vocabulary_size` entries.
    pub fn ids(&self, vocabulary_size: usize) -> Vec<u32> {
        (0..self.count())
            .map(|row| (vocabulary_size + row) as u32)
            .collect()
    }

    /// Embeds a prompt in which ids from the vocabulary's size on are image tokens.
    ///
    /// # Shapes
    /// `[batch, tokens]` to `[batch, tokens, width]`.
    pub fn embed(&self, llama: &LlamaForCausalLm<B>, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let vocabulary_size = llama.vocabulary_size() as i64;
        let [batch, tokens] = ids.dims();
        let width = llama.width();
        let is_image = ids
            .clone()
            .greater_equal_elem(vocabulary_size)
            .reshape([batch, tokens, 1])
            .expand([batch, tokens, width]);
        let words = llama.embed(ids.clone().clamp(0, vocabulary_size - 1));
        let rows = (ids - vocabulary_size).clamp(0, self.count() as i64 - 1);
        let images = burn::tensor::module::embedding(self.weight.val(), rows);
        let dtype = words.dtype();
        words.mask_where(is_image, images.cast(dtype))
    }
}

/// Normal draws with mean zero by Box and Muller.
pub(super) fn normal_values(count: usize, deviation: f64, random: &mut impl Rng) -> Vec<f32> {
    (0..count)
        .map(|_| {
            let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
            let angle = std::f64::consts::TAU * random.random::<f64>();
            (deviation * radius * angle.cos()) as f32
        })
        .collect()
}
