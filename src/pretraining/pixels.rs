//! Training images in host memory, their random variants, and grids of them for the eye.

use std::path::Path;

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;

use super::error::PretrainingError;

/// Square RGB images of one size.
#[derive(Debug, Clone)]
pub struct ImageSet {
    size: usize,
    images: Vec<Vec<u8>>,
}

impl ImageSet {
    /// Images of `size` × `size` pixels, each `3 · size²` bytes: rows of RGB triples.
    ///
    /// # Errors
    /// When an image has another number of bytes.
    pub fn new(size: usize, images: Vec<Vec<u8>>) -> Result<Self, PretrainingError> {
        let expected = 3 * size * size;
        match images.iter().position(|image| image.len() != expected) {
            Some(index) => Err(PretrainingError::Data(format!(
                "image {index} has {} bytes, {size} × {size} RGB has {expected}",
                images[index].len()
            ))),
            None => Ok(Self { size, images }),
        }
    }

    /// Height and width in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Is there no image?
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The images of `indices` as `[batch, 3, size, size]` in [−1, 1].
    pub fn batch<B: Backend>(&self, indices: &[usize], device: &Device<B>) -> Tensor<B, 4> {
        let planes = indices
            .iter()
            .flat_map(|&index| self.planes(index, Placement::IDENTITY))
            .collect();
        self.tensor(planes, indices.len(), device)
    }

    /// As [`batch`](Self::batch), each image mirrored, moved and scaled at random.
    pub fn random_batch<B: Backend>(
        &self,
        indices: &[usize],
        augmentation: &Augmentation,
        random: &mut impl Rng,
        device: &Device<B>,
    ) -> Tensor<B, 4> {
        let planes = indices
            .iter()
            .flat_map(|&index| self.planes(index, augmentation.draw(random)))
            .collect();
        self.tensor(planes, indices.len(), device)
    }

    /// The images of `indices` mirrored left to right.
    pub fn mirrored_batch<B: Backend>(
        &self,
        indices: &[usize],
        device: &Device<B>,
    ) -> Tensor<B, 4> {
        let mirrored = Placement {
            mirrored: true,
            ..Placement::IDENTITY
        };
        let planes = indices
            .iter()
            .flat_map(|&index| self.planes(index, mirrored))
            .collect();
        self.tensor(planes, indices.len(), device)
    }

    fn tensor<B: Backend>(
        &self,
        planes: Vec<f32>,
        count: usize,
        device: &Device<B>,
    ) -> Tensor<B, 4> {
        Tensor::from_data(
            TensorData::new(planes, [count, 3, self.size, self.size]),
            device,
        )
    }

    /// Three colour planes in [−1, 1]; what lies outside the image is white.
    fn planes(&self, index: usize, placement: Placement) -> Vec<f32> {
        let size = self.size;
        let image = &self.images[index];
        let pixel = |x: isize, y: isize, channel: usize| {
            if x < 0 || y < 0 || x >= size as isize || y >= size as isize {
                1.0
            } else {
                image[3 * (y as usize * size + x as usize) + channel] as f32 / 127.5 - 1.0
            }
        };
        let centre = (size as f32 - 1.0) / 2.0;
        let mut planes = vec![0f32; 3 * size * size];
        for y in 0..size {
            for x in 0..size {
                let column = if placement.mirrored { size - 1 - x } else { x };
                let source_x =
                    (column as f32 - centre - placement.shift[0]) / placement.scale + centre;
                let source_y = (y as f32 - centre - placement.shift[1]) / placement.scale + centre;
                let (left, top) = (source_x.floor(), source_y.floor());
                let (along, down) = (source_x - left, source_y - top);
                let (left, top) = (left as isize, top as isize);
                for channel in 0..3 {
                    let row = |y: isize| {
                        let first = pixel(left, y, channel);
                        if along == 0.0 {
                            first
                        } else {
                            first + along * (pixel(left + 1, y, channel) - first)
                        }
                    };
                    let upper = row(top);
                    planes[(channel * size + y) * size + x] = if down == 0.0 {
                        upper
                    } else {
                        upper + down * (row(top + 1) - upper)
                    };
                }
            }
        }
        planes
    }
}

/// Where an image's pixels go.
#[derive(Debug, Clone, Copy)]
struct Placement {
    mirrored: bool,
    scale: f32,
    shift: [f32; 2],
}

impl Placement {
    const IDENTITY: Self = Self {
        mirrored: false,
        scale: 1.0,
        shift: [0.0, 0.0],
    };
}

/// How far a training image may be changed.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Mirror every second image?
    pub mirror: bool,
    /// Largest shift along each axis, in pixels.
    pub shift: usize,
    /// Smallest and largest scale.
    pub scale: [f32; 2],
    /// Fraction of images that are only mirrored, never resampled (resampling blurs).
    pub unscaled: f32,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            mirror: true,
            shift: 4,
            scale: [0.85, 1.1],
            unscaled: 0.6,
        }
    }
}

impl Augmentation {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// When a number changes no picture; the message names the key.
    pub fn validate(&self) -> Result<(), PretrainingError> {
        let [smallest, largest] = self.scale;
        if !(smallest > 0.0 && largest >= smallest && largest.is_finite()) {
            return Err(PretrainingError::Setting {
                key: "augmentation.scale",
                found: format!("[{smallest}, {largest}]"),
                expected: "two numbers above 0, the smaller first",
            });
        }
        if !(0.0..=1.0).contains(&self.unscaled) {
            return Err(PretrainingError::Setting {
                key: "augmentation.unscaled",
                found: self.unscaled.to_string(),
                expected: "between 0 and 1",
            });
        }
        Ok(())
    }

    fn draw(&self, random: &mut impl Rng) -> Placement {
        let mirrored = self.mirror && random.random_bool(0.5);
        let reach = self.shift as i32;
        let shift = [0; 2].map(|_: i32| random.random_range(-reach..=reach) as f32);
        let scale = if random.random::<f32>() < self.unscaled {
            1.0
        } else {
            random.random_range(self.scale[0]..=self.scale[1])
        };
        Placement {
            mirrored,
            scale,
            shift,
        }
    }
}

/// Writes rows of images (`[count, 3, size, size]` in [−1, 1] each) as one PNG for the eye.
///
/// # Errors
/// When the file cannot be written.
pub fn write_grid<B: Backend>(path: &Path, rows: &[Tensor<B, 4>]) -> Result<(), PretrainingError> {
    let Some([count, _, size, _]) = rows.first().map(|row| row.dims()) else {
        return Ok(());
    };
    let mut grid = image::RgbImage::new((count * size) as u32, (rows.len() * size) as u32);
    for (row, tensor) in rows.iter().enumerate() {
        let values: Vec<f32> = tensor.to_data().iter::<f32>().collect();
        for (place, value) in values.iter().enumerate() {
            let (column, rest) = (place / (3 * size * size), place % (3 * size * size));
            let (channel, y, x) = (rest / (size * size), rest / size % size, rest % size);
            let byte = ((value.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8;
            let (x, y) = ((column * size + x) as u32, (row * size + y) as u32);
            grid.get_pixel_mut(x, y).0[channel] = byte;
        }
    }
    let failed = |source| PretrainingError::File {
        path: path.to_path_buf(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    grid.save(path)
        .map_err(|error| failed(std::io::Error::other(error)))
}
