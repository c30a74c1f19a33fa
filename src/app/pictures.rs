//! Pictures as PNG files.

use std::io::Cursor;

use anyhow::Context as _;
use image::{ImageFormat, RgbImage};

/// The picture as a PNG file.
///
/// # Errors
/// When the encoder refuses.
pub fn png(picture: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .context("cannot encode a picture as PNG")?;
    Ok(bytes.into_inner())
}
