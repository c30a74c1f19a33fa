//! Embeddings of texts, `e_i` (method, equation 2).

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::store::{FeatureStore, Key};
use super::{FeatureError, rows};
use crate::networks::clip::{Clip, normalise};
use crate::optimisation::Progress;
use crate::text::TextTokenizer;

/// CLIP's text tower, loaded.
#[derive(Debug)]
pub struct SemanticEncoder<'a, B: Backend> {
    /// The network.
    pub clip: &'a Clip<B>,
    /// Its tokeniser.
    pub tokenizer: &'a TextTokenizer,
    /// Its context length; longer texts are cut.
    pub context_length: usize,
    /// The digest of its weights and configuration.
    pub fingerprint: &'a str,
    /// Where it lives.
    pub device: Device<B>,
}

impl<B: Backend> SemanticEncoder<'_, B> {
    /// The embedding of each text, at length one.
    ///
    /// # Errors
    /// A full disk.
    pub fn embeddings(
        &self,
        texts: &[&str],
        batch_size: usize,
        store: &FeatureStore,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<f32>>, FeatureError> {
        let keys: Vec<Key> = texts
            .iter()
            .map(|text| {
                let parts: [&[u8]; 2] = [text.as_bytes(), self.fingerprint.as_bytes()];
                Key::new("text embedding", &parts)
            })
            .collect();
        store.complete("text embeddings", &keys, batch_size, progress, |places| {
            let batch: Vec<&str> = places.iter().map(|place| texts[*place]).collect();
            Ok(self.encode(&batch))
        })
    }

    /// As [`embeddings`](Self::embeddings), computed at once and not kept.
    pub fn encode(&self, texts: &[&str]) -> Vec<Vec<f32>> {
        let (ids, _) = self.tokenizer.encode_padded(texts, self.context_length);
        let ids: Vec<i64> = ids.into_iter().flatten().map(i64::from).collect();
        let shape = [texts.len(), self.context_length];
        let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, shape), &self.device);
        let embedded = normalise(self.clip.text_embeds(ids));
        rows(&embedded.into_data(), texts.len())
    }
}
