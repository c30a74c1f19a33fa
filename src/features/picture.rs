//! A picture file by its content.

use std::path::{Path, PathBuf};

use image::RgbImage;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::data::image::{ImageError, ImageLimits, decode};

/// A picture file and the digest of its bytes; decoded when it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    path: PathBuf,
    digest: [u8; 32],
    limits: ImageLimits,
}

impl Picture {
    /// Reads the file's bytes for their digest. Whether they are a picture shows when it is decoded.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(path: &Path, limits: &ImageLimits) -> Result<Self, ImageError> {
        let unreadable = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => ImageError::Missing {
                path: path.to_path_buf(),
            },
            _ => ImageError::Unreadable {
                path: path.to_path_buf(),
                reason: source.to_string(),
            },
        };
        let found = std::fs::metadata(path).map_err(unreadable)?.len();
        if found > limits.max_file_bytes {
            return Err(ImageError::FileTooLarge {
                path: path.to_path_buf(),
                found,
                allowed: limits.max_file_bytes,
            });
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        Ok(Self {
            path: path.to_path_buf(),
            digest: Sha256::digest(&bytes).into(),
            limits: *limits,
        })
    }

    /// The digest of the file's bytes.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The pixels.
    ///
    /// # Errors
    /// Too large, of an unknown kind, or corrupt.
    pub fn decode(&self) -> Result<RgbImage, ImageError> {
        decode(&self.path, &self.limits)
    }
}

/// Decodes a batch, in parallel.
pub(super) fn decode_all(
    pictures: &[Picture],
    places: &[usize],
) -> Result<Vec<RgbImage>, ImageError> {
    places
        .par_iter()
        .map(|place| pictures[*place].decode())
        .collect()
}
