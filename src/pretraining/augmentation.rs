//! Small changes of training pictures that keep glyph and style.

use image::RgbImage;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::error::PretrainingError;

/// What may happen to a training picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Chance of a mirror image.
    pub flip: f64,
    /// Largest shift along each axis, in parts of the side; by whole pixels, which blur no edge, where pictures are neither scaled nor turned.
    pub shift: f64,
    /// Smallest and largest scale.
    pub scale: [f64; 2],
    /// Largest rotation either way, in degrees.
    pub rotation: f64,
    /// Largest change of each channel's distance from white, in parts of it.
    pub colour: f64,
    /// Chance that a white rectangle hides a part.
    pub erase: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            flip: 0.5,
            shift: 0.08,
            scale: [0.8, 1.15],
            rotation: 12.0,
            colour: 0.05,
            erase: 0.25,
        }
    }
}

impl Augmentation {
    /// For what is known by its shape: all that leaves the shape is changed.
    pub const STRONG: Self = Self {
        flip: 0.5,
        shift: 0.08,
        scale: [0.75, 1.2],
        rotation: 14.0,
        colour: 0.2,
        erase: 0.4,
    };

    /// For what is known by its edges and shades: mirrored and moved by whole pixels, since what blurs or tints would hide it.
    pub const SHARP: Self = Self {
        flip: 0.5,
        shift: 0.08,
        scale: [1.0, 1.0],
        rotation: 0.0,
        colour: 0.0,
        erase: 0.0,
    };

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// When a number changes no picture; the message names the key.
    pub fn validate(&self) -> Result<(), PretrainingError> {
        let setting = |key, found: String, expected| {
            Err(PretrainingError::Setting {
                key,
                found,
                expected,
            })
        };
        let chances = [
            ("augmentation.flip", self.flip),
            ("augmentation.erase", self.erase),
        ];
        for (key, chance) in chances {
            if !(0.0..=1.0).contains(&chance) {
                return setting(key, chance.to_string(), "between 0 and 1");
            }
        }
        let amounts = [
            ("augmentation.shift", self.shift),
            ("augmentation.rotation", self.rotation),
            ("augmentation.colour", self.colour),
        ];
        for (key, amount) in amounts {
            if !(amount.is_finite() && amount >= 0.0) {
                return setting(key, amount.to_string(), "a number of at least 0");
            }
        }
        let [smallest, largest] = self.scale;
        if !(smallest > 0.0 && largest >= smallest && largest.is_finite()) {
            let found = format!("[{smallest}, {largest}]");
            return setting(
                "augmentation.scale",
                found,
                "two numbers above 0, the smaller first",
            );
        }
        Ok(())
    }

    /// A changed copy of `image` as channels, rows, columns in [−1, 1]. What comes in from outside is white.
    pub(super) fn apply<R: Rng>(&self, image: &RgbImage, rng: &mut R) -> Vec<f32> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let mut symmetric = |largest: f64| (2.0 * rng.random::<f64>() - 1.0) * largest;
        let resampled = self.scale != [1.0, 1.0] || self.rotation != 0.0;
        let mut shift = |side: usize| {
            let pixels = symmetric(self.shift) * side as f64;
            if resampled { pixels } else { pixels.round() }
        };
        let (shift_x, shift_y) = (shift(width), shift(height));
        let angle = symmetric(self.rotation).to_radians();
        let gains = [0; 3].map(|_| 1.0 + symmetric(self.colour) as f32);
        let scale = self.scale[0] + (self.scale[1] - self.scale[0]) * rng.random::<f64>();
        let mirror = if rng.random_bool(self.flip) {
            -1.0
        } else {
            1.0
        };
        let hole = rng.random_bool(self.erase).then(|| {
            let mut side =
                |length: usize| (length as f64 * (0.1 + 0.2 * rng.random::<f64>())) as usize;
            let (hole_width, hole_height) = (side(width).max(1), side(height).max(1));
            let x = rng.random_range(0..=width - hole_width);
            let y = rng.random_range(0..=height - hole_height);
            (x..x + hole_width, y..y + hole_height)
        });

        let (sine, cosine) = angle.sin_cos();
        let centre = [(width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0];
        let area = width * height;
        let mut values = vec![1.0f32; 3 * area];
        for y in 0..height {
            for x in 0..width {
                let hidden = hole
                    .as_ref()
                    .is_some_and(|(columns, rows)| columns.contains(&x) && rows.contains(&y));
                if hidden {
                    continue;
                }
                // Where this pixel comes from.
                let dx = (x as f64 - centre[0] - shift_x) / scale;
                let dy = (y as f64 - centre[1] - shift_y) / scale;
                let from_x = (cosine * dx + sine * dy) * mirror + centre[0];
                let from_y = -sine * dx + cosine * dy + centre[1];
                let colour = bilinear(image, from_x as f32, from_y as f32);
                for channel in 0..3 {
                    let unit = 1.0 - (1.0 - colour[channel]) * gains[channel];
                    values[channel * area + y * width + x] = 2.0 * unit.clamp(0.0, 1.0) - 1.0;
                }
            }
        }
        values
    }
}

/// The colour between four pixels, in [0, 1]; white outside.
fn bilinear(image: &RgbImage, x: f32, y: f32) -> [f32; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (part_x, part_y) = (x - left, y - top);
    let mut colour = [0.0f32; 3];
    for (dx, dy, weight) in [
        (0, 0, (1.0 - part_x) * (1.0 - part_y)),
        (1, 0, part_x * (1.0 - part_y)),
        (0, 1, (1.0 - part_x) * part_y),
        (1, 1, part_x * part_y),
    ] {
        let (column, row) = (left as i64 + dx, top as i64 + dy);
        let inside = column >= 0
            && row >= 0
            && column < i64::from(image.width())
            && row < i64::from(image.height());
        let pixel = if inside {
            image.get_pixel(column as u32, row as u32).0
        } else {
            [255; 3]
        };
        for channel in 0..3 {
            colour[channel] += weight * f32::from(pixel[channel]) / 255.0;
        }
    }
    colour
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn what_changes_no_picture_is_refused_by_name() {
        let refused = |change: fn(&mut Augmentation)| {
            let mut augmentation = Augmentation::default();
            change(&mut augmentation);
            augmentation.validate().map_err(|error| error.to_string())
        };
        assert_eq!(refused(|_| ()), Ok(()));
        for (change, key) in [
            ((|a| a.flip = 1.5) as fn(&mut Augmentation), "flip"),
            (|a| a.erase = -0.1, "erase"),
            (|a| a.shift = f64::NAN, "shift"),
            (|a| a.rotation = -1.0, "rotation"),
            (|a| a.colour = f64::INFINITY, "colour"),
            (|a| a.scale = [0.0, 1.0], "scale"),
            (|a| a.scale = [1.2, 0.8], "scale"),
        ] {
            let message = refused(change).expect_err(key);
            assert!(
                message.starts_with(&format!("`augmentation.{key}`")),
                "{message}"
            );
        }
    }

    #[test]
    fn what_is_only_moved_keeps_its_pixels() {
        let image = RgbImage::from_fn(9, 9, |x, y| {
            image::Rgb([(28 * x) as u8, (28 * y) as u8, 77])
        });
        let moved = Augmentation {
            flip: 0.5,
            shift: 0.3,
            scale: [1.0, 1.0],
            rotation: 0.0,
            colour: 0.0,
            erase: 0.0,
        };
        let turned = Augmentation {
            rotation: 5.0,
            ..moved.clone()
        };
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let own = |values: &[f32]| {
            values.iter().all(|value| {
                let byte = (value + 1.0) * 127.5;
                let byte = (byte.round() as i32, (byte - byte.round()).abs() < 1e-3);
                byte.1 && (byte.0 == 77 || byte.0 == 255 || byte.0 % 28 == 0)
            })
        };
        assert!((0..20).all(|_| own(&moved.apply(&image, &mut random))));
        assert!(!(0..20).all(|_| own(&turned.apply(&image, &mut random))));
    }
}
