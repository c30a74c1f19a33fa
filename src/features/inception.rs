//! Inception's features of pictures: what FID compares.

use burn::tensor::Device;
use burn::tensor::backend::Backend;
use image::RgbImage;

use super::picture::{Picture, decode_all};
use super::store::{FeatureStore, Key};
use super::{FeatureError, rows};
use crate::data::pixels::to_batch;
use crate::networks::inception::InceptionV3;
use crate::optimisation::Progress;

/// FID's network, loaded.
#[derive(Debug)]
pub struct InceptionExtractor<B: Backend> {
    /// The network.
    pub network: Box<InceptionV3<B>>,
    /// The digest of its weights.
    pub fingerprint: String,
    /// Where it lives.
    pub device: Device<B>,
}

impl<B: Backend> InceptionExtractor<B> {
    /// The feature of each picture, kept in `store`.
    ///
    /// # Errors
    /// A picture that cannot be used, or a full disk.
    pub fn features(
        &self,
        pictures: &[Picture],
        batch_size: usize,
        store: &FeatureStore,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<f32>>, FeatureError> {
        let keys: Vec<Key> = pictures
            .iter()
            .map(|picture| {
                let parts: [&[u8]; 2] = [picture.digest(), self.fingerprint.as_bytes()];
                Key::new("inception feature", &parts)
            })
            .collect();
        store.complete(
            "inception features",
            &keys,
            batch_size,
            progress,
            |places| {
                let images = decode_all(pictures, places)?;
                Ok(self.encode(&images.iter().collect::<Vec<_>>(), batch_size))
            },
        )
    }

    /// As [`features`](Self::features), of decoded pictures of any sizes, computed at once and not kept.
    pub fn encode(&self, images: &[&RgbImage], batch_size: usize) -> Vec<Vec<f32>> {
        let mut features = Vec::with_capacity(images.len());
        let mut rest = images;
        while let Some(first) = rest.first() {
            // A batch has one size.
            let alike = rest
                .iter()
                .take(batch_size.max(1))
                .take_while(|image| image.dimensions() == first.dimensions())
                .count();
            let (batch, later) = rest.split_at(alike);
            let found = self.network.features(to_batch(batch, &self.device));
            features.extend(rows(&found.into_data(), batch.len()));
            rest = later;
        }
        features
    }
}
