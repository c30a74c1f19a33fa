//! Pictures of any size compared pair by pair: perceptual distance and structural similarity.
//!
//! The second picture of a pair is brought to the first one's size: drawings are judged at the size they were drawn at.

use std::borrow::Cow;

use burn::tensor::Device;
use burn::tensor::backend::Backend;
use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::distance::{DistanceError, structural_similarity};
use crate::data::pixels::to_batch;
use crate::networks::lpips::{Lpips, LpipsError};

/// `picture` at the size of `model`.
fn fitted<'a>(picture: &'a RgbImage, model: &RgbImage) -> Cow<'a, RgbImage> {
    match picture.dimensions() == model.dimensions() {
        true => Cow::Borrowed(picture),
        false => {
            let (width, height) = model.dimensions();
            Cow::Owned(resize(picture, width, height, FilterType::CatmullRom))
        }
    }
}

/// LPIPS of each pair, `batch_size` pairs at once on the device.
///
/// # Errors
/// For each pair apart: a drawing smaller than the network's windows.
pub fn perceptual_distances<B: Backend>(
    network: &Lpips<B>,
    pairs: &[(&RgbImage, &RgbImage)],
    batch_size: usize,
    device: &Device<B>,
) -> Vec<Result<f64, LpipsError>> {
    let mut distances = Vec::with_capacity(pairs.len());
    let mut rest = pairs;
    while let Some((first, _)) = rest.first() {
        // A batch has one size.
        let alike = rest
            .iter()
            .take(batch_size.max(1))
            .take_while(|(other, _)| other.dimensions() == first.dimensions())
            .count();
        let (batch, later) = rest.split_at(alike);
        let drawn: Vec<&RgbImage> = batch.iter().map(|(drawn, _)| *drawn).collect();
        let others: Vec<Cow<'_, RgbImage>> = batch
            .iter()
            .map(|(drawn, other)| fitted(other, drawn))
            .collect();
        let others: Vec<&RgbImage> = others.iter().map(AsRef::as_ref).collect();
        match network.forward(to_batch(&drawn, device), to_batch(&others, device)) {
            Ok(found) => {
                let values = found.total.into_data();
                distances.extend(values.iter::<f32>().map(|value| Ok(f64::from(value))));
            }
            Err(error) => distances.extend(batch.iter().map(|_| Err(error.clone()))),
        }
        rest = later;
    }
    distances
}

/// Structural similarity of a drawing and another picture: scikit-image's gaussian settings, pixels from 0 to 255.
///
/// # Errors
/// A drawing smaller than the window of 11 pixels.
pub fn picture_similarity(drawn: &RgbImage, other: &RgbImage) -> Result<f64, DistanceError> {
    let other = fitted(other, drawn);
    let (width, height) = drawn.dimensions();
    let shape = [3, height as usize, width as usize];
    structural_similarity(&planes(drawn), &planes(&other), shape, 255.0)
}

fn planes(picture: &RgbImage) -> Vec<f32> {
    let raw = picture.as_raw();
    (0..3)
        .flat_map(|channel| {
            raw[channel..]
                .iter()
                .step_by(3)
                .map(|value| f32::from(*value))
        })
        .collect()
}
