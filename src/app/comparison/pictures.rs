//! Drawn pictures on disk: by method, checkpoint, user, reference and seed.

use std::path::{Path, PathBuf};

use image::RgbImage;
use sha2::{Digest, Sha256};

use crate::app::files;
use crate::app::pictures::png;
use crate::baselines::Request;

/// One method's pictures.
#[derive(Debug, Clone)]
pub struct PictureCache {
    folder: PathBuf,
}

impl PictureCache {
    /// The pictures of `method` whose checkpoint and settings `fingerprint` says, under `root`.
    pub fn new(root: &Path, method: &str, fingerprint: &str) -> Self {
        let digest = Sha256::digest(fingerprint.as_bytes());
        Self {
            folder: root.join(format!("{method}-{digest:.12x}")),
        }
    }

    /// Where a picture lies. Names are readable where ids are, and distinct always; `words` is whatever else decides the
    /// picture.
    fn path(&self, request: &Request<'_>, words: &str, seed: u64) -> PathBuf {
        let mut hash = Sha256::new();
        for text in [&request.sample.user, &request.sample.reference_id, words] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        let readable = |text: &str| -> String {
            let safe = text.chars().take(40);
            safe.map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .collect()
        };
        self.folder.join(format!(
            "{}-{}-{:.8x}-{seed}.png",
            readable(&request.sample.user),
            readable(&request.sample.reference_id),
            hash.finalize()
        ))
    }

    /// The picture, where it was drawn before; a damaged file counts as absent.
    pub fn get(&self, request: &Request<'_>, words: &str, seed: u64) -> Option<RgbImage> {
        let bytes = std::fs::read(self.path(request, words, seed)).ok()?;
        let format = image::ImageFormat::Png;
        let picture = image::load_from_memory_with_format(&bytes, format).ok()?;
        Some(picture.into_rgb8())
    }

    /// Keeps a picture, whole or not at all.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put(
        &self,
        request: &Request<'_>,
        words: &str,
        seed: u64,
        picture: &RgbImage,
    ) -> anyhow::Result<()> {
        files::write(&self.path(request, words, seed), &png(picture)?)
    }
}
