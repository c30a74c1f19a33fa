//! Pictures as tensors and back: `[channels, height, width]`, values in [−1, 1].

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use image::RgbImage;
use image::imageops::{FilterType, resize};

/// The picture at `side` × `side`: as it is where it has that size.
pub fn fitted(picture: RgbImage, side: u32) -> RgbImage {
    match picture.dimensions() == (side, side) {
        true => picture,
        false => resize(&picture, side, side, FilterType::CatmullRom),
    }
}

/// One picture as `[3, height, width]` in [−1, 1].
pub fn to_tensor<B: Backend>(picture: &RgbImage, device: &B::Device) -> Tensor<B, 3> {
    let (width, height) = picture.dimensions();
    let values = planes(picture, |value, _| f32::from(value) / 127.5 - 1.0);
    Tensor::from_data(
        TensorData::new(values, [3, height as usize, width as usize]),
        device,
    )
}

/// Pictures of one size as `[batch, 3, height, width]` in [−1, 1].
///
/// # Panics
/// When there is no picture, or the sizes differ.
pub fn to_batch<B: Backend>(pictures: &[&RgbImage], device: &B::Device) -> Tensor<B, 4> {
    let (width, height) = pictures.first().expect("at least one picture").dimensions();
    let mut values = Vec::with_capacity(pictures.len() * 3 * (width * height) as usize);
    for picture in pictures {
        assert_eq!(
            picture.dimensions(),
            (width, height),
            "pictures of one batch have one size"
        );
        values.extend(planes(picture, |value, _| f32::from(value) / 127.5 - 1.0));
    }
    let shape = [pictures.len(), 3, height as usize, width as usize];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// `[batch, 3, height, width]` in [−1, 1] as pictures; values outside are clamped, NaN becomes black.
pub fn to_pictures<B: Backend>(batch: Tensor<B, 4>) -> Vec<RgbImage> {
    let [num_pictures, num_channels, height, width] = batch.dims();
    assert_eq!(num_channels, 3, "pictures have three channels");
    let values: Vec<f32> = batch.into_data().iter::<f32>().collect();
    let plane = height * width;
    (0..num_pictures)
        .map(|number| {
            let picture = &values[number * 3 * plane..(number + 1) * 3 * plane];
            RgbImage::from_fn(width as u32, height as u32, |x, y| {
                let place = y as usize * width + x as usize;
                image::Rgb([0, 1, 2].map(|channel| {
                    let value = picture[channel * plane + place];
                    ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
                }))
            })
        })
        .collect()
}

/// The channels one after another, each value mapped with its channel.
pub(super) fn planes(picture: &RgbImage, map: impl Fn(u8, usize) -> f32) -> Vec<f32> {
    let raw = picture.as_raw();
    (0..3)
        .flat_map(|channel| raw[channel..].iter().step_by(3).map(move |&v| (v, channel)))
        .map(|(value, channel)| map(value, channel))
        .collect()
}
