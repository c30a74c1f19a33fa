//! Captions of pictures, `c_i` (method, equation 1).

use burn::tensor::Device;
use burn::tensor::backend::Backend;
use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::FeatureError;
use super::picture::{Picture, decode_all};
use super::store::{FeatureStore, Key};
use crate::networks::blip2::{Blip2ForConditionalGeneration, CaptionOptions};
use crate::networks::clip::ClipPreprocessing;
use crate::optimisation::Progress;
use crate::text::TextTokenizer;

/// How captions are decoded. The paper takes BLIP-2 and says no more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptionConfig {
    /// What the caption continues; empty for a caption from nothing.
    pub prompt: String,
    /// Longest caption in tokens.
    pub max_new_tokens: usize,
    /// Beams kept; 1 decodes greedily.
    pub num_beams: usize,
    /// Pictures captioned at once.
    pub batch_size: usize,
}

impl Default for CaptionConfig {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            max_new_tokens: 24,
            num_beams: 1,
            batch_size: 32,
        }
    }
}

impl CaptionConfig {
    /// Refuses values without a meaning, with the reason.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.max_new_tokens == 0 || self.num_beams == 0 {
            return Err("max_new_tokens and num_beams must be at least 1".into());
        }
        Ok(())
    }
}

/// A captioner, loaded.
#[derive(Debug)]
pub struct Captioner<'a, B: Backend> {
    /// The network.
    pub network: &'a Blip2ForConditionalGeneration<B>,
    /// Its tokeniser.
    pub tokenizer: &'a TextTokenizer,
    /// What it does to pictures first.
    pub preprocessing: &'a ClipPreprocessing,
    /// The digest of its weights and configuration.
    pub fingerprint: &'a str,
    /// Where it lives.
    pub device: Device<B>,
}

impl<B: Backend> Captioner<'_, B> {
    /// A caption per picture.
    ///
    /// # Errors
    /// A picture that cannot be used, or a full disk.
    pub fn captions(
        &self,
        pictures: &[Picture],
        config: &CaptionConfig,
        store: &FeatureStore,
        progress: &dyn Progress,
    ) -> Result<Vec<String>, FeatureError> {
        let settings = format!(
            "{:?} {} {} {}",
            config.prompt,
            config.max_new_tokens,
            config.num_beams,
            self.preprocessing.to_json()
        );
        let keys: Vec<Key> = pictures
            .iter()
            .map(|picture| {
                let parts: [&[u8]; 3] = [
                    picture.digest(),
                    self.fingerprint.as_bytes(),
                    settings.as_bytes(),
                ];
                Key::new("caption", &parts)
            })
            .collect();
        let prompt = (!config.prompt.is_empty()).then(|| self.tokenizer.encode(&config.prompt));
        let options = CaptionOptions {
            max_new_tokens: config.max_new_tokens,
            num_beams: config.num_beams,
            ..CaptionOptions::default()
        };
        store.complete("captions", &keys, config.batch_size, progress, |places| {
            let images = decode_all(pictures, places)?;
            let images: Vec<&RgbImage> = images.iter().collect();
            let pixels = self.preprocessing.to_pixels::<B>(&images, &self.device);
            let rows = self.network.caption(pixels, prompt.as_deref(), &options)?;
            Ok(rows
                .iter()
                .map(|ids| self.tokenizer.decode(ids).trim().to_string())
                .collect())
        })
    }
}
