//! Decoding pictures that may be corrupt or hostile.
//!
//! The size a file declares is held against the limits before anything is allocated for its pixels.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use ::image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How large a picture may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageLimits {
    /// Longest declared side, in pixels.
    pub max_side: u32,
    /// Largest declared width times height.
    pub max_pixels: u64,
    /// Largest file, in bytes.
    pub max_file_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            max_side: 16_384,
            // A 50-megapixel photograph still passes.
            max_pixels: 60_000_000,
            max_file_bytes: 100_000_000,
        }
    }
}

/// Bytes a decoder may hold for each pixel of the limit: 16-bit RGBA.
const BYTES_PER_PIXEL: u64 = 8;
/// What a decoder may hold besides.
const WORKING_BYTES: u64 = 64 << 20;

/// A picture that cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    #[error("{path}: no such image", path = path.display())]
    Missing { path: PathBuf },
    #[error("{path}: {reason}", path = path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{path}: the file holds {found} bytes, at most {allowed} are allowed", path = path.display())]
    FileTooLarge {
        path: PathBuf,
        found: u64,
        allowed: u64,
    },
    #[error(
        "{path}: declares {width}×{height} pixels, at most {max_side} a side and {max_pixels} in all are allowed",
        path = path.display()
    )]
    TooLarge {
        path: PathBuf,
        width: u32,
        height: u32,
        max_side: u32,
        max_pixels: u64,
    },
    #[error("{path}: not a PNG, JPEG, WebP, GIF or BMP image", path = path.display())]
    Unrecognised { path: PathBuf },
    #[error("{path}: the image is corrupt: {reason}", path = path.display())]
    Corrupt { path: PathBuf, reason: String },
}

impl ImageError {
    /// The message without the path.
    pub fn reason(&self) -> String {
        let message = self.to_string();
        let path = match self {
            Self::Missing { path }
            | Self::Unreadable { path, .. }
            | Self::FileTooLarge { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Unrecognised { path }
            | Self::Corrupt { path, .. } => path,
        };
        message
            .strip_prefix(&format!("{}: ", path.display()))
            .unwrap_or(&message)
            .to_string()
    }
}

/// Decodes `path` to RGB: transparent parts over white, turned as its metadata says, first frame of an animation.
///
/// # Errors
/// Always with the path: missing, too large (before decoding), of an unknown kind, or corrupt.
pub fn decode(path: &Path, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ImageError::Missing {
            path: path.to_path_buf(),
        },
        _ => ImageError::Unreadable {
            path: path.to_path_buf(),
            reason: error.to_string(),
        },
    };
    // Asked of the path before opening: opening a pipe would wait.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(ImageError::Unreadable {
            path: path.to_path_buf(),
            reason: "not a regular file".to_string(),
        });
    }
    if metadata.len() > limits.max_file_bytes {
        return Err(ImageError::FileTooLarge {
            path: path.to_path_buf(),
            found: metadata.len(),
            allowed: limits.max_file_bytes,
        });
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut reader = ImageReader::new(BufReader::new(file))
        .with_guessed_format()
        .map_err(unreadable)?;
    if reader.format().is_none() {
        return Err(ImageError::Unrecognised {
            path: path.to_path_buf(),
        });
    }
    let mut allocation = Limits::no_limits();
    allocation.max_alloc = Some(limits.max_pixels * BYTES_PER_PIXEL + WORKING_BYTES);
    reader.limits(allocation);
    let corrupt = |error: ::image::ImageError| ImageError::Corrupt {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    let mut decoder = reader.into_decoder().map_err(corrupt)?;
    let (width, height) = decoder.dimensions();
    let num_pixels = u64::from(width) * u64::from(height);
    if width.max(height) > limits.max_side || num_pixels > limits.max_pixels {
        return Err(ImageError::TooLarge {
            path: path.to_path_buf(),
            width,
            height,
            max_side: limits.max_side,
            max_pixels: limits.max_pixels,
        });
    }
    let orientation = decoder.orientation().map_err(corrupt)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(corrupt)?;
    picture.apply_orientation(orientation);
    Ok(over_white(picture))
}

/// RGB; what is transparent becomes white.
fn over_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let source = picture.into_rgba8();
    let mut flat = RgbImage::new(source.width(), source.height());
    for (target, pixel) in flat.pixels_mut().zip(source.pixels()) {
        let [red, green, blue, alpha] = pixel.0;
        target.0 = [red, green, blue].map(|channel| {
            let (channel, alpha) = (u32::from(channel), u32::from(alpha));
            ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        });
    }
    flat
}
