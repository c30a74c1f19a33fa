//! Drawing a glyph: 64×64 RGB on white, centred, the same extent in every style.

use image::imageops::FilterType;
use image::{Rgb, RgbImage, RgbaImage};
use resvg::{tiny_skia, usvg};

/// Side of a shipped picture in pixels.
pub const SIDE: u32 = 64;
/// Longest extent of the drawing inside it: three pixels of white remain around.
pub const EXTENT: u32 = 58;
/// Side at which SVG is rasterised before it is scaled down.
const RASTER_SIDE: u32 = 256;
/// Alpha under which a pixel counts as empty when the drawing's extent is measured.
const EMPTY_ALPHA: u8 = 12;

/// Rasterises an SVG document at 256 pixels on its longer side, straight alpha.
///
/// # Errors
/// The reason, when the document is not SVG or has no extent.
pub fn rasterise(svg: &str) -> Result<RgbaImage, String> {
    let tree =
        usvg::Tree::from_str(svg, &usvg::Options::default()).map_err(|error| error.to_string())?;
    let size = tree.size();
    let scale = RASTER_SIDE as f32 / size.width().max(size.height());
    let width = (size.width() * scale).round().max(1.0) as u32;
    let height = (size.height() * scale).round().max(1.0) as u32;
    let mut pixmap =
        tiny_skia::Pixmap::new(width, height).ok_or("the drawing has no extent".to_string())?;
    resvg::render(
        &tree,
        tiny_skia::Transform::from_scale(scale, scale),
        &mut pixmap.as_mut(),
    );
    let mut raster = RgbaImage::new(width, height);
    for (target, source) in raster.pixels_mut().zip(pixmap.pixels()) {
        let colour = source.demultiply();
        target.0 = [colour.red(), colour.green(), colour.blue(), colour.alpha()];
    }
    Ok(raster)
}

/// Puts a drawing on white, scales its visible part to [`EXTENT`] and centres it in [`SIDE`] pixels.
///
/// # Errors
/// The reason, when nothing is visible.
pub fn normalise(drawing: &RgbaImage) -> Result<RgbImage, String> {
    let (left, top, right, bottom) =
        visible_extent(drawing).ok_or("nothing is visible".to_string())?;
    let (width, height) = (right - left + 1, bottom - top + 1);
    let on_white = RgbImage::from_fn(width, height, |x, y| {
        let [red, green, blue, alpha] = drawing.get_pixel(left + x, top + y).0;
        Rgb([red, green, blue].map(|channel| over_white(channel, alpha)))
    });
    let scale = EXTENT as f32 / width.max(height) as f32;
    let scaled = |length: u32| ((length as f32 * scale).round() as u32).clamp(1, EXTENT);
    let small = image::imageops::resize(
        &on_white,
        scaled(width),
        scaled(height),
        FilterType::CatmullRom,
    );
    let mut picture = RgbImage::from_pixel(SIDE, SIDE, Rgb([255; 3]));
    image::imageops::replace(
        &mut picture,
        &small,
        i64::from((SIDE - small.width()) / 2),
        i64::from((SIDE - small.height()) / 2),
    );
    Ok(picture)
}

fn over_white(channel: u8, alpha: u8) -> u8 {
    let (channel, alpha) = (u32::from(channel), u32::from(alpha));
    ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// Left, top, right and bottom of what is visible, both ends included.
fn visible_extent(drawing: &RgbaImage) -> Option<(u32, u32, u32, u32)> {
    let mut extent: Option<(u32, u32, u32, u32)> = None;
    for (x, y, pixel) in drawing.enumerate_pixels() {
        if pixel.0[3] > EMPTY_ALPHA {
            extent = Some(match extent {
                None => (x, y, x, y),
                Some((left, top, right, bottom)) => {
                    (left.min(x), top.min(y), right.max(x), bottom.max(y))
                }
            });
        }
    }
    extent
}

/// The smallest of several lossless PNG encodings: a palette where 256 colours suffice, else RGB under several filters.
pub fn encode_png(picture: &RgbImage) -> Result<Vec<u8>, png::EncodingError> {
    let mut encodings = Vec::new();
    if let Some((palette, indices)) = palette(picture) {
        // Eight-bit indices: fewer bits save little once deflated.
        for filter in [png::Filter::NoFilter, png::Filter::Up] {
            encodings.push(encode(
                picture,
                png::ColorType::Indexed,
                Some(&palette),
                &indices,
                filter,
            )?);
        }
    }
    for filter in [
        png::Filter::Adaptive,
        png::Filter::NoFilter,
        png::Filter::Paeth,
        png::Filter::Sub,
    ] {
        encodings.push(encode(
            picture,
            png::ColorType::Rgb,
            None,
            picture.as_raw(),
            filter,
        )?);
    }
    Ok(encodings
        .into_iter()
        .min_by_key(Vec::len)
        .unwrap_or_default())
}

fn encode(
    picture: &RgbImage,
    colour: png::ColorType,
    palette: Option<&[u8]>,
    bytes: &[u8],
    filter: png::Filter,
) -> Result<Vec<u8>, png::EncodingError> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, picture.width(), picture.height());
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(palette) = palette {
        encoder.set_palette(palette.to_vec());
    }
    encoder.set_deflate_compression(png::DeflateCompression::Level(9));
    encoder.set_filter(filter);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()?;
    Ok(out)
}

/// Palette and one index a pixel, when there are at most 256 colours; colours in order of luminance.
fn palette(picture: &RgbImage) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut colours: Vec<[u8; 3]> = picture.pixels().map(|pixel| pixel.0).collect();
    let luminance = |c: &[u8; 3]| 2 * u32::from(c[0]) + 5 * u32::from(c[1]) + u32::from(c[2]);
    colours.sort_by_key(|colour| (luminance(colour), *colour));
    colours.dedup();
    if colours.len() > 256 {
        return None;
    }
    let place: std::collections::HashMap<[u8; 3], u8> = colours
        .iter()
        .enumerate()
        .map(|(index, colour)| (*colour, index as u8))
        .collect();
    let indices = picture.pixels().map(|pixel| place[&pixel.0]).collect();
    Some((colours.concat(), indices))
}
