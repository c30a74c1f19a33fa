//! The generator that all methods share, with the data they may look at.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use image::RgbImage;

use super::method::{DrawError, Request};
use crate::data::image::ImageError;
use crate::data::item::Catalogue;
use crate::data::pixels::to_pictures;
use crate::generation::drawing::Drawing;
use crate::generation::sample::Sample;

/// One generator, one number of steps, one latent per user, reference and seed.
pub struct Studio<'a, B: Backend> {
    /// The generator and how it draws; its seed is replaced by that of each call.
    pub drawing: Drawing<'a, B>,
    /// A digest of the generator's weights.
    pub identity: String,
    /// How it draws, in words: decides pictures, and no training.
    pub sampler: String,
    /// The items.
    pub catalogue: &'a Catalogue,
    /// What the generator is told of each item.
    pub words: &'a [String],
    /// The captioner's words for each item; empty where nobody asked.
    pub captions: &'a [String],
    /// Visual embeddings of the items.
    pub visual: &'a [Vec<f32>],
    /// Which items no method may show or learn from.
    pub held_out: &'a (dyn Fn(usize) -> bool + 'a),
    /// The picture of an item.
    pub picture: &'a (dyn Fn(usize) -> Result<RgbImage, ImageError> + 'a),
    /// Width and height of what the generator draws; read by methods that train through it.
    pub side: usize,
}

impl<B: Backend> Studio<'_, B> {
    /// A picture from each conditioning, `[requests, Q, d]`: the one that `drawing.choice` keeps.
    pub fn conditionings(
        &self,
        requests: &[Request<'_>],
        conditionings: Tensor<B, 3>,
        seed: u64,
    ) -> Vec<Result<RgbImage, DrawError>> {
        let drawing = Drawing {
            seed,
            ..self.drawing
        };
        draw(&drawing, requests, conditionings)
    }

    /// As [`conditionings`](Self::conditionings), one drawing of each: for methods that choose by themselves.
    pub fn unchosen(
        &self,
        requests: &[Request<'_>],
        conditionings: Tensor<B, 3>,
        seed: u64,
    ) -> Vec<Result<RgbImage, DrawError>> {
        let drawing = Drawing {
            seed,
            choice: None,
            ..self.drawing
        };
        draw(&drawing, requests, conditionings)
    }

    /// A picture from each prompt.
    pub fn prompts(
        &self,
        requests: &[Request<'_>],
        prompts: &[&str],
        seed: u64,
    ) -> Vec<Result<RgbImage, DrawError>> {
        if requests.is_empty() {
            return Vec::new();
        }
        let states = self.drawing.text.encode(prompts).states;
        self.conditionings(requests, states, seed)
    }
}

fn draw<B: Backend>(
    drawing: &Drawing<'_, B>,
    requests: &[Request<'_>],
    conditionings: Tensor<B, 3>,
) -> Vec<Result<RgbImage, DrawError>> {
    if requests.is_empty() {
        return Vec::new();
    }
    let samples: Vec<&Sample> = requests.iter().map(|request| request.sample).collect();
    let mut pictures = Vec::with_capacity(requests.len());
    let drawn = drawing.conditionings(&samples, conditionings, |images| {
        pictures.extend(checked(images));
    });
    match drawn {
        Ok(()) => pictures,
        Err(error) => vec![Err(DrawError::Schedule(error.to_string())); requests.len()],
    }
}

/// Images in [−1, 1] as pictures, those with values that are no numbers refused.
fn checked<B: Backend>(images: Tensor<B, 4>) -> Vec<Result<RgbImage, DrawError>> {
    let [count, channels, height, width] = images.dims();
    let device = images.device();
    let values: Vec<f32> = images.into_data().iter::<f32>().collect();
    let size = channels * height * width;
    (0..count)
        .map(|place| {
            let own = &values[place * size..(place + 1) * size];
            if own.iter().any(|value| !value.is_finite()) {
                return Err(DrawError::NotFinite);
            }
            let data = TensorData::new(own.to_vec(), [1, channels, height, width]);
            let image = Tensor::<B, 4>::from_data(data, &device);
            to_pictures(image).pop().ok_or(DrawError::NotFinite)
        })
        .collect()
}
