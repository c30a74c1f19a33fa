//! From a picture to what the vision tower reads (transformers' `CLIPImageProcessor`).

use burn::tensor::{Tensor, TensorData, backend::Backend};
use image::RgbImage;
use image::imageops::{self, FilterType};
use serde_json::{Value, json};

/// A `preprocessor_config.json` that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: expected {expected}, found {found}")]
pub struct PreprocessingError {
    /// The key.
    pub key: &'static str,
    /// What it may be.
    pub expected: &'static str,
    /// What it is.
    pub found: String,
}

/// Resize, crop, normalise.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipPreprocessing {
    /// How to resize first, if at all.
    pub resize: Option<Resize>,
    /// Width and height cut from the middle, if at all.
    pub crop: Option<[u32; 2]>,
    /// Filter of the resizing.
    pub filter: Filter,
    /// Mean of each channel, in [0, 1].
    pub mean: [f32; 3],
    /// Deviation of each channel.
    pub deviation: [f32; 3],
}

/// The target of resizing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The shorter side gets this length, the shape stays.
    ShortestEdge(u32),
    /// Exactly this width and height.
    Exact([u32; 2]),
}

/// Resampling filters, by Pillow's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// 0.
    Nearest,
    /// 1.
    Lanczos,
    /// 2.
    Bilinear,
    /// 3.
    Bicubic,
}

impl Filter {
    const ALL: [(u64, Self); 4] = [
        (0, Self::Nearest),
        (1, Self::Lanczos),
        (2, Self::Bilinear),
        (3, Self::Bicubic),
    ];

    fn number(self) -> u64 {
        self as u64
    }

    fn kernel(self) -> FilterType {
        match self {
            Self::Nearest => FilterType::Nearest,
            Self::Lanczos => FilterType::Lanczos3,
            Self::Bilinear => FilterType::Triangle,
            Self::Bicubic => FilterType::CatmullRom,
        }
    }
}

impl ClipPreprocessing {
    /// OpenAI CLIP's, for pictures of `side` pixels.
    pub fn clip(side: u32) -> Self {
        Self {
            resize: Some(Resize::ShortestEdge(side)),
            crop: Some([side, side]),
            filter: Filter::Bicubic,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            deviation: [0.268_629_54, 0.261_302_58, 0.275_777_11],
        }
    }

    /// The tiny family's: as CLIP's, but to [−1, 1], the range of the generator's pictures.
    pub fn symmetric(side: u32) -> Self {
        Self {
            mean: [0.5; 3],
            deviation: [0.5; 3],
            ..Self::clip(side)
        }
    }

    /// Reads `preprocessor_config.json`; absent keys take `CLIPImageProcessor`'s defaults for `side` pixels.
    ///
    /// # Errors
    /// When a key has a form that no version of transformers writes.
    pub fn from_json(value: &Value, side: u32) -> Result<Self, PreprocessingError> {
        let default = Self::clip(side);
        let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(true);
        let given = |key: &str| value.get(key).filter(|value| !value.is_null());
        let resize = match given("size") {
            _ if !flag("do_resize") => None,
            None => default.resize,
            Some(size) => Some(read_size(size)?),
        };
        let crop = match given("crop_size") {
            _ if !flag("do_center_crop") => None,
            None => default.crop,
            Some(size) => match read_size(size)? {
                Resize::ShortestEdge(side) => Some([side, side]),
                Resize::Exact(sides) => Some(sides),
            },
        };
        let filter = match given("resample") {
            None => default.filter,
            Some(number) => Filter::ALL
                .into_iter()
                .find(|(known, _)| number.as_u64() == Some(*known))
                .map(|(_, filter)| filter)
                .ok_or_else(|| PreprocessingError {
                    key: "resample",
                    expected: "one of Pillow's filters 0 to 3",
                    found: number.to_string(),
                })?,
        };
        let channels = |key: &'static str, default: [f32; 3], off: f32| match given(key) {
            _ if !flag("do_normalize") => Ok([off; 3]),
            None => Ok(default),
            Some(list) => serde_json::from_value(list.clone()).map_err(|_| PreprocessingError {
                key,
                expected: "three numbers",
                found: list.to_string(),
            }),
        };
        Ok(Self {
            resize,
            crop,
            filter,
            mean: channels("image_mean", default.mean, 0.0)?,
            deviation: channels("image_std", default.deviation, 1.0)?,
        })
    }

    /// `preprocessor_config.json`.
    pub fn to_json(&self) -> Value {
        let rectangle = |[width, height]: [u32; 2]| json!({"height": height, "width": width});
        let round = |values: [f32; 3]| values.map(|v| (f64::from(v) * 1e8).round() / 1e8);
        json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": true,
            "do_resize": self.resize.is_some(),
            "size": self.resize.map(|resize| match resize {
                Resize::ShortestEdge(side) => json!({"shortest_edge": side}),
                Resize::Exact(sides) => rectangle(sides),
            }),
            "resample": self.filter.number(),
            "do_center_crop": self.crop.is_some(),
            "crop_size": self.crop.map(rectangle),
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": true,
            "image_mean": round(self.mean),
            "image_std": round(self.deviation),
        })
    }

    /// The pictures as `[batch, 3, height, width]`, normalised. All must come out of one size.
    pub fn to_pixels<B: Backend>(&self, images: &[&RgbImage], device: &B::Device) -> Tensor<B, 4> {
        let rows: Vec<RgbImage> = images.iter().map(|image| self.resized(image)).collect();
        let (width, height) = rows.first().map_or((0, 0), RgbImage::dimensions);
        let area = (width * height) as usize;
        let mut values = Vec::with_capacity(rows.len() * 3 * area);
        for row in &rows {
            assert_eq!(
                row.dimensions(),
                (width, height),
                "preprocessed pictures of one batch differ in size"
            );
            for channel in 0..3 {
                let (mean, deviation) = (self.mean[channel], self.deviation[channel]);
                values.extend(
                    row.pixels()
                        .map(|pixel| (f32::from(pixel[channel]) / 255.0 - mean) / deviation),
                );
            }
        }
        let shape = [rows.len(), 3, height as usize, width as usize];
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Pictures in [−1, 1] as a generator draws them, `[batch, 3, height, width]`, made ready on their device.
    /// Those that need resizing go through the host, so that they are treated exactly as files are.
    pub fn from_symmetric<B: Backend>(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, channels, height, width] = images.dims();
        let sides = [width as u32, height as u32];
        if self.crop.unwrap_or(sides) == sides && self.resize_target(sides) == sides {
            let device = images.device();
            let constant = |values: [f32; 3]| {
                Tensor::<B, 1>::from_floats(values, &device).reshape([1, 3, 1, 1])
            };
            let unit = images.clamp(-1.0, 1.0).add_scalar(1.0).mul_scalar(0.5);
            return (unit - constant(self.mean)) / constant(self.deviation);
        }
        let device = images.device();
        let values: Vec<f32> = images.into_data().iter::<f32>().collect();
        let area = height * width;
        let pictures: Vec<RgbImage> = values
            .chunks_exact((channels * area).max(1))
            .take(batch)
            .map(|picture| {
                RgbImage::from_fn(width as u32, height as u32, |x, y| {
                    let place = y as usize * width + x as usize;
                    image::Rgb([0, 1, 2].map(|channel| {
                        let unit = (picture[channel * area + place].clamp(-1.0, 1.0) + 1.0) / 2.0;
                        (unit * 255.0).round() as u8
                    }))
                })
            })
            .collect();
        self.to_pixels(&pictures.iter().collect::<Vec<_>>(), &device)
    }

    fn resize_target(&self, [width, height]: [u32; 2]) -> [u32; 2] {
        match self.resize {
            None => [width, height],
            Some(Resize::Exact(sides)) => sides,
            Some(Resize::ShortestEdge(side)) => {
                let long = |long: u32, short: u32| {
                    (u64::from(side) * u64::from(long) / u64::from(short.max(1))) as u32
                };
                if width <= height {
                    [side, long(height, width)]
                } else {
                    [long(width, height), side]
                }
            }
        }
    }

    fn resized(&self, image: &RgbImage) -> RgbImage {
        let [width, height] = self.resize_target([image.width(), image.height()]);
        let image = if (width, height) == image.dimensions() {
            image.clone()
        } else {
            imageops::resize(image, width, height, self.filter.kernel())
        };
        let Some([crop_width, crop_height]) = self.crop else {
            return image;
        };
        if (crop_width, crop_height) == image.dimensions() {
            return image;
        }
        // A picture smaller than the crop is set on black, as transformers does.
        let mut cropped = RgbImage::new(crop_width, crop_height);
        let offset = |crop: u32, side: u32| -(i64::from(side) - i64::from(crop)).div_euclid(2);
        let (x, y) = (
            offset(crop_width, image.width()),
            offset(crop_height, image.height()),
        );
        imageops::replace(&mut cropped, &image, x, y);
        cropped
    }
}

fn read_size(value: &Value) -> Result<Resize, PreprocessingError> {
    let side = |value: &Value| value.as_u64().and_then(|side| u32::try_from(side).ok());
    let field = |key: &str| value.get(key).and_then(side);
    side(value)
        .or_else(|| field("shortest_edge"))
        .map(Resize::ShortestEdge)
        .or_else(|| Some(Resize::Exact([field("width")?, field("height")?])))
        .ok_or_else(|| PreprocessingError {
            key: "size",
            expected: "a number, {\"shortest_edge\": n} or {\"height\": n, \"width\": n}",
            found: value.to_string(),
        })
}
