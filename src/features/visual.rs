//! Embeddings of pictures, `f_i` (method, equation 4).

use burn::tensor::Device;
use burn::tensor::backend::Backend;
use image::RgbImage;

use super::picture::{Picture, decode_all};
use super::store::{FeatureStore, Key};
use super::{FeatureError, rows};
use crate::networks::clip::{Clip, ClipPreprocessing, normalise};
use crate::optimisation::Progress;

/// CLIP's vision tower, loaded.
#[derive(Debug)]
pub struct VisualExtractor<'a, B: Backend> {
    /// The network.
    pub clip: &'a Clip<B>,
    /// What it does to pictures first.
    pub preprocessing: &'a ClipPreprocessing,
    /// The digest of its weights and configuration.
    pub fingerprint: &'a str,
    /// Where it lives.
    pub device: Device<B>,
}

impl<B: Backend> VisualExtractor<'_, B> {
    /// The embedding of each picture, at length one.
    ///
    /// # Errors
    /// A picture that cannot be used, or a full disk.
    pub fn embeddings(
        &self,
        pictures: &[Picture],
        batch_size: usize,
        store: &FeatureStore,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<f32>>, FeatureError> {
        let preprocessing = self.preprocessing.to_json().to_string();
        let keys: Vec<Key> = pictures
            .iter()
            .map(|picture| {
                let parts: [&[u8]; 3] = [
                    picture.digest(),
                    self.fingerprint.as_bytes(),
                    preprocessing.as_bytes(),
                ];
                Key::new("image embedding", &parts)
            })
            .collect();
        store.complete("image embeddings", &keys, batch_size, progress, |places| {
            let images = decode_all(pictures, places)?;
            Ok(self.encode(&images.iter().collect::<Vec<_>>()))
        })
    }

    /// As [`embeddings`](Self::embeddings), of decoded pictures, computed at once and not kept.
    pub fn encode(&self, images: &[&RgbImage]) -> Vec<Vec<f32>> {
        let pixels = self.preprocessing.to_pixels::<B>(images, &self.device);
        let embedded = normalise(self.clip.image_embeds(pixels));
        rows(&embedded.into_data(), images.len())
    }
}
