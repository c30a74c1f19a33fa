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

/// The picture as a PNG file that says how it came to be: `facts` are keywords (1 to 79 plain letters) and their texts.
///
/// # Errors
/// When the encoder refuses, a keyword for instance.
pub fn png_with_facts(picture: &RgbImage, facts: &[(&str, String)]) -> anyhow::Result<Vec<u8>> {
    let encode = || -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let (width, height) = picture.dimensions();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        for (keyword, text) in facts {
            // The international form: names of users and items are of any script.
            encoder.add_itxt_chunk((*keyword).to_string(), text.clone())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(picture.as_raw())?;
        writer.finish()?;
        Ok(bytes)
    };
    encode().context("cannot encode a picture as PNG")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_stand_in_the_file_and_pixels_stay() {
        let picture = RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let facts = [("user", "ü1".to_string()), ("seed", "5".into())];
        let bytes = png_with_facts(&picture, &facts).unwrap();
        let reader = png::Decoder::new(Cursor::new(&bytes)).read_info().unwrap();
        let found: Vec<(String, String)> = reader
            .info()
            .utf8_text
            .iter()
            .map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap()))
            .collect();
        let expected = facts.map(|(keyword, text)| (keyword.to_string(), text));
        assert_eq!(found, expected);
        assert_eq!(image::load_from_memory(&bytes).unwrap().to_rgb8(), picture);
    }
}
