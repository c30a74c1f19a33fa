//! What the frozen networks say of the pictures, once.

use std::collections::HashMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::vae::draw;
use super::{DiffusionPretrainingConfig, PromptedImages, TextStates};
use crate::networks::diffusion::AutoencoderKl;

/// Images that are encoded at once.
const ENCODED: usize = 32;

/// Everything the frozen networks say about a data set, on the host.
pub(super) struct Cache {
    /// Of the images as they are, then of all of them in each further form.
    pub(super) latents: Vec<Vec<f32>>,
    pub(super) num_images: usize,
    pub(super) latent_shape: [usize; 3],
    pub(super) states: Vec<Vec<f32>>,
    pub(super) state_shape: [usize; 2],
    /// The prompts of each image, as places in `states`. The empty prompt is place 0.
    pub(super) prompts: Vec<Vec<usize>>,
    pub(super) num_extra: usize,
}

impl Cache {
    pub(super) fn new<B: Backend>(
        data: &PromptedImages,
        vae: &AutoencoderKl<B>,
        text: &dyn TextStates<B>,
        device: &Device<B>,
    ) -> Self {
        let indices: Vec<usize> = (0..data.images.len()).collect();
        let mut latents = Vec::new();
        let mut latent_shape = [0; 3];
        for chunk in indices.chunks(ENCODED) {
            let mean = vae.encode(data.images.batch::<B>(chunk, device)).mean;
            let [_, channels, height, width] = mean.dims();
            latent_shape = [channels, height, width];
            latents.extend(rows(vae.scale(mean).into_data(), channels * height * width));
        }
        let mut distinct = vec![String::new()];
        let mut places: HashMap<&str, usize> = HashMap::from([("", 0)]);
        let prompts = data
            .prompts
            .iter()
            .map(|prompts| {
                prompts
                    .iter()
                    .map(|prompt| {
                        *places.entry(prompt.as_str()).or_insert_with(|| {
                            distinct.push(prompt.clone());
                            distinct.len() - 1
                        })
                    })
                    .collect()
            })
            .collect();
        let mut states = Vec::new();
        let mut state_shape = [0; 2];
        for chunk in distinct.chunks(64) {
            let encoded = text.text_states(chunk);
            let [_, tokens, width] = encoded.dims();
            state_shape = [tokens, width];
            states.extend(rows(encoded.into_data(), tokens * width));
        }
        Self {
            num_images: latents.len(),
            latents,
            latent_shape,
            states,
            state_shape,
            prompts,
            num_extra: data.num_extra,
        }
    }

    /// The images once more in each further form.
    pub(super) fn add_views<B: Backend>(
        &mut self,
        config: &DiffusionPretrainingConfig,
        data: &PromptedImages,
        vae: &AutoencoderKl<B>,
        device: &Device<B>,
    ) {
        let indices: Vec<usize> = (0..data.images.len()).collect();
        let length = self.latent_shape.iter().product();
        for view in 1..config.views {
            let mut random = ChaCha8Rng::seed_from_u64(config.seed ^ 0x71e3);
            random.set_stream(view as u64);
            for chunk in indices.chunks(ENCODED) {
                let images =
                    data.images
                        .random_batch::<B>(chunk, &config.augmentation, &mut random, device);
                let mean = vae.encode(images).mean;
                self.latents
                    .extend(rows(vae.scale(mean).into_data(), length));
            }
        }
    }

    pub(super) fn latents<B: Backend>(&self, images: &[usize], device: &Device<B>) -> Tensor<B, 4> {
        let [channels, height, width] = self.latent_shape;
        let values = images.iter().flat_map(|&i| self.latents[i].iter().copied());
        let shape = [images.len(), channels, height, width];
        Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), shape), device)
    }

    pub(super) fn contexts<B: Backend>(
        &self,
        prompts: &[usize],
        device: &Device<B>,
    ) -> Tensor<B, 3> {
        let [tokens, width] = self.state_shape;
        let values = prompts.iter().flat_map(|&i| self.states[i].iter().copied());
        let shape = [prompts.len(), tokens, width];
        Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), shape), device)
    }

    /// `count` images of step `step`, `extra_share` of them from the extra ones.
    pub(super) fn draw(
        &self,
        count: usize,
        extra_share: f64,
        step: usize,
        seed: u64,
    ) -> Vec<usize> {
        let num_own = self.num_images - self.num_extra;
        let from_extra = match self.num_extra {
            0 => 0,
            _ => (extra_share * count as f64).round() as usize,
        };
        let mut images = match count - from_extra {
            0 => Vec::new(),
            from_own => draw(num_own, from_own, step, seed),
        };
        if from_extra > 0 {
            let extra = draw(self.num_extra, from_extra, step, seed + 1);
            images.extend(extra.into_iter().map(|image| num_own + image));
        }
        images
    }

    pub(super) fn captions(&self, images: &[usize]) -> Vec<usize> {
        images.iter().map(|&i| self.prompts[i][0]).collect()
    }
}

fn rows(data: TensorData, length: usize) -> Vec<Vec<f32>> {
    let values: Vec<f32> = data.iter::<f32>().collect();
    values.chunks(length).map(<[f32]>::to_vec).collect()
}
