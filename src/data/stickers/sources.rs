//! The packages, opened together: which styles a glyph exists in, and its drawing in each.

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::Style;
use super::error::StickerError;
use super::packages::{
    EMOJIBASE, EmojiTable, FLUENT_3D, FLUENT_FLAT, FXEMOJI, IconSet, NOTO, Package, PackageSource,
    RasterSet, TWEMOJI,
};
use super::render;

/// All packages the builder draws from.
#[derive(Debug)]
pub struct Sources {
    pub table: EmojiTable,
    flat: IconSet,
    cartoon: IconSet,
    shaded: IconSet,
    retro: IconSet,
    glossy: RasterSet,
    pub packages: Vec<Package>,
}

/// Where one style of one glyph is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drawing {
    /// The name of an icon in the style's SVG set.
    Icon(String),
    /// A raster file with transparency.
    Raster(PathBuf),
}

/// The package that holds a style's drawings.
pub fn package_of(style: Style) -> PackageSource {
    match style {
        Style::Flat => FLUENT_FLAT,
        Style::Glossy => FLUENT_3D,
        Style::Cartoon => TWEMOJI,
        Style::Shaded => NOTO,
        Style::Retro => FXEMOJI,
    }
}

impl Sources {
    /// Opens every package under `root`.
    ///
    /// # Errors
    /// The first missing package with the command that brings it, or the file that cannot be read.
    pub fn open(root: &Path) -> Result<Self, StickerError> {
        let emojibase = EMOJIBASE.find(root)?;
        let [flat, glossy, cartoon, shaded, retro] =
            Style::ALL.map(|style| package_of(style).find(root));
        let (flat, glossy, cartoon, shaded, retro) = (flat?, glossy?, cartoon?, shaded?, retro?);
        Ok(Self {
            table: EmojiTable::open(&emojibase)?,
            flat: IconSet::open(&flat)?,
            glossy: RasterSet::open(&glossy)?,
            cartoon: IconSet::open(&cartoon)?,
            shaded: IconSet::open(&shaded)?,
            retro: IconSet::open(&retro)?,
            packages: vec![emojibase, flat, glossy, cartoon, shaded, retro],
        })
    }

    /// The drawing of a glyph in one style, if the style has it. `retro_icon` is the glyph's name in the one set
    /// without hexcodes.
    pub fn drawing(
        &self,
        hexcode: &str,
        retro_icon: Option<&str>,
        style: Style,
    ) -> Option<Drawing> {
        let name = match style {
            Style::Glossy => {
                return self
                    .glossy
                    .file(hexcode)
                    .map(|p| Drawing::Raster(p.to_path_buf()));
            }
            Style::Retro => retro_icon?,
            Style::Flat | Style::Cartoon | Style::Shaded => self.icons(style)?.name(hexcode)?,
        };
        self.icons(style)?
            .contains(name)
            .then(|| Drawing::Icon(name.to_string()))
    }

    /// Draws it: 64×64 RGB on white.
    ///
    /// # Errors
    /// [`StickerError::Drawing`] with the file and the reason.
    pub fn draw(
        &self,
        glyph: &str,
        style: Style,
        drawing: &Drawing,
    ) -> Result<RgbImage, StickerError> {
        let (path, raster) = match drawing {
            Drawing::Icon(name) => {
                let icons = self.icons(style);
                let path = icons.map(|set| set.path.clone()).unwrap_or_default();
                let raster = icons
                    .and_then(|set| set.svg(name))
                    .ok_or_else(|| format!("no icon called {name:?}"))
                    .and_then(|svg| render::rasterise(&svg));
                (path, raster)
            }
            Drawing::Raster(path) => (
                path.clone(),
                image::open(path)
                    .map(|picture| picture.to_rgba8())
                    .map_err(|error| error.to_string()),
            ),
        };
        raster
            .and_then(|raster| render::normalise(&raster))
            .map_err(|reason| StickerError::Drawing {
                path,
                glyph: glyph.to_string(),
                style: style.name(),
                reason,
            })
    }

    fn icons(&self, style: Style) -> Option<&IconSet> {
        match style {
            Style::Flat => Some(&self.flat),
            Style::Cartoon => Some(&self.cartoon),
            Style::Shaded => Some(&self.shaded),
            Style::Retro => Some(&self.retro),
            Style::Glossy => None,
        }
    }
}
