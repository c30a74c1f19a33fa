//! What a vision tower wants done to a picture first, as the hub's `preprocessor_config.json` says:
//! resize the shorter side, crop the centre, scale to [0, 1], normalise by channel.

use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use image::RgbImage;
use image::imageops::{self, FilterType};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::pixels::{planes, to_pictures};

/// A `preprocessor_config.json` that cannot be used.
#[derive(Debug, Error)]
pub enum PreprocessError {
    #[error("{path}: {source}", path = path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: {source}", path = path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{path}: {field} is {found}, expected {expected}", path = path.display())]
    Field {
        path: PathBuf,
        field: &'static str,
        found: String,
        expected: &'static str,
    },
}

/// The hub's `preprocessor_config.json`; keys not listed here are left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImagePreprocessing {
    #[serde(default = "yes")]
    pub do_resize: bool,
    pub size: Size,
    /// Pillow's number of the filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic.
    #[serde(default = "bicubic")]
    pub resample: u8,
    #[serde(default)]
    pub do_center_crop: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop_size: Option<Size>,
    #[serde(default = "yes")]
    pub do_rescale: bool,
    #[serde(default = "one_255th")]
    pub rescale_factor: f64,
    #[serde(default = "yes")]
    pub do_normalize: bool,
    pub image_mean: [f32; 3],
    pub image_std: [f32; 3],
}

/// A size as the hub writes it: a number, a shortest edge, or height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    Edge(u32),
    Shortest { shortest_edge: u32 },
    Exact { height: u32, width: u32 },
}

/// CLIP's channel means in [0, 1].
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's channel deviations in [0, 1].
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

fn yes() -> bool {
    true
}

fn bicubic() -> u8 {
    3
}

fn one_255th() -> f64 {
    1.0 / 255.0
}

impl ImagePreprocessing {
    /// CLIP's: the shorter side to `side`, the central square, CLIP's means and deviations.
    pub fn clip(side: u32) -> Self {
        Self {
            do_resize: true,
            size: Size::Shortest {
                shortest_edge: side,
            },
            resample: bicubic(),
            do_center_crop: true,
            crop_size: Some(Size::Exact {
                height: side,
                width: side,
            }),
            do_rescale: true,
            rescale_factor: one_255th(),
            do_normalize: true,
            image_mean: CLIP_MEAN,
            image_std: CLIP_STD,
        }
    }

    /// Reads `preprocessor_config.json` in `folder`.
    ///
    /// # Errors
    /// The file, and what about it cannot be used.
    pub fn open(folder: &Path) -> Result<Self, PreprocessError> {
        let path = folder.join("preprocessor_config.json");
        let bytes = std::fs::read(&path).map_err(|source| PreprocessError::Io {
            path: path.clone(),
            source,
        })?;
        let this: Self =
            serde_json::from_slice(&bytes).map_err(|source| PreprocessError::Json {
                path: path.clone(),
                source,
            })?;
        let field = |field, found: String, expected| {
            Err(PreprocessError::Field {
                path: path.clone(),
                field,
                found,
                expected,
            })
        };
        if this.resample > 3 {
            return field("resample", this.resample.to_string(), "0, 1, 2 or 3");
        }
        let sizes = [Some(this.size), this.crop_size];
        if sizes.into_iter().flatten().any(Size::is_empty) {
            return field("size", "0".to_string(), "at least one pixel");
        }
        if this.image_std.iter().any(|std| *std <= 0.0) {
            return field(
                "image_std",
                format!("{:?}", this.image_std),
                "positive numbers",
            );
        }
        Ok(this)
    }

    /// Height and width of what comes out, for a picture of this height and width.
    pub fn output_size(&self, height: u32, width: u32) -> (u32, u32) {
        let resized = self.resized(height, width);
        match self.crop_size {
            Some(size) if self.do_center_crop => size.exact(),
            _ => resized,
        }
    }

    /// One picture, ready for the tower: `[3, height, width]`.
    pub fn apply<B: Backend>(&self, picture: &RgbImage, device: &B::Device) -> Tensor<B, 3> {
        let picture = self.shaped(picture);
        let values = planes(&picture, |value, channel| {
            let mut value = f32::from(value);
            if self.do_rescale {
                value *= self.rescale_factor as f32;
            }
            if self.do_normalize {
                value = (value - self.image_mean[channel]) / self.image_std[channel];
            }
            value
        });
        let (width, height) = picture.dimensions();
        let shape = [3, height as usize, width as usize];
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Several pictures of any sizes: `[batch, 3, height, width]`.
    pub fn apply_all<B: Backend>(
        &self,
        pictures: &[&RgbImage],
        device: &B::Device,
    ) -> Tensor<B, 4> {
        Tensor::stack(
            pictures
                .iter()
                .map(|picture| self.apply(picture, device))
                .collect(),
            0,
        )
    }

    /// Drawn pictures `[batch, 3, height, width]` in [−1, 1], ready for the tower, on the same device. Pictures of the
    /// tower's own size stay on the device; others are resized on the host, like files.
    pub fn apply_to_drawn<B: Backend>(&self, drawn: Tensor<B, 4>) -> Tensor<B, 4> {
        let [_, _, height, width] = drawn.dims();
        let device = drawn.device();
        let same = self.output_size(height as u32, width as u32) == (height as u32, width as u32)
            && self.resized(height as u32, width as u32) == (height as u32, width as u32);
        if !same {
            let pictures = to_pictures(drawn);
            return self.apply_all(&pictures.iter().collect::<Vec<_>>(), &device);
        }
        let mut values = drawn.clamp(-1.0, 1.0).add_scalar(1.0).mul_scalar(0.5);
        if !self.do_rescale {
            values = values.mul_scalar(255.0);
        } else {
            values = values.mul_scalar(255.0 * self.rescale_factor);
        }
        if self.do_normalize {
            let channels = |numbers: [f32; 3]| {
                Tensor::<B, 4>::from_data(TensorData::new(numbers.to_vec(), [1, 3, 1, 1]), &device)
            };
            values = (values - channels(self.image_mean)) / channels(self.image_std);
        }
        values
    }

    /// Height and width after resizing.
    fn resized(&self, height: u32, width: u32) -> (u32, u32) {
        if !self.do_resize {
            return (height, width);
        }
        match self.size {
            Size::Exact { height, width } => (height, width),
            Size::Edge(edge)
            | Size::Shortest {
                shortest_edge: edge,
            } => {
                // The longer side is cut to a whole number, as the reference does.
                let longer = |long: u32, short: u32| {
                    (u64::from(edge) * u64::from(long) / u64::from(short.max(1))) as u32
                };
                if width <= height {
                    (longer(height, width), edge)
                } else {
                    (edge, longer(width, height))
                }
            }
        }
    }

    fn shaped(&self, picture: &RgbImage) -> RgbImage {
        let (width, height) = picture.dimensions();
        let (new_height, new_width) = self.resized(height, width);
        let resized = if (new_height, new_width) == (height, width) {
            picture.clone()
        } else {
            imageops::resize(picture, new_width, new_height, self.filter())
        };
        match self.crop_size {
            Some(size) if self.do_center_crop => centre(&resized, size.exact()),
            _ => resized,
        }
    }

    fn filter(&self) -> FilterType {
        match self.resample {
            0 => FilterType::Nearest,
            1 => FilterType::Lanczos3,
            2 => FilterType::Triangle,
            _ => FilterType::CatmullRom,
        }
    }
}

impl Size {
    /// Height and width; a single number means a square.
    fn exact(self) -> (u32, u32) {
        match self {
            Size::Edge(edge)
            | Size::Shortest {
                shortest_edge: edge,
            } => (edge, edge),
            Size::Exact { height, width } => (height, width),
        }
    }

    fn is_empty(self) -> bool {
        let (height, width) = self.exact();
        height == 0 || width == 0
    }
}

/// The central part; a smaller picture is centred on black, as the reference pads with zeros.
fn centre(picture: &RgbImage, (height, width): (u32, u32)) -> RgbImage {
    let (old_width, old_height) = picture.dimensions();
    if old_width >= width && old_height >= height {
        let (left, top) = ((old_width - width) / 2, (old_height - height) / 2);
        return imageops::crop_imm(picture, left, top, width, height).to_image();
    }
    let mut padded = RgbImage::new(width, height);
    let offset = |new: u32, old: u32| (i64::from(new) - i64::from(old)).div_euclid(2);
    imageops::replace(
        &mut padded,
        picture,
        offset(width, old_width),
        offset(height, old_height),
    );
    padded
}
