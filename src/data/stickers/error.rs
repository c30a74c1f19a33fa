//! What can go wrong while the sticker set is built.

use std::path::PathBuf;

use thiserror::Error;

/// A failure of the sticker builder, naming the file or package and the way out.
#[derive(Debug, Error)]
pub enum StickerError {
    #[error(
        "{root}: the package {name} is missing; bring it with `{command}` inside that folder",
        root = root.display()
    )]
    MissingPackage {
        root: PathBuf,
        name: &'static str,
        command: String,
    },
    #[error("{path}: {source}", path = path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: not the JSON this package should hold: {source}", path = path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{path}: the picture of {glyph} in style {style} cannot be drawn: {reason}", path = path.display())]
    Drawing {
        path: PathBuf,
        glyph: String,
        style: &'static str,
        reason: String,
    },
    #[error("the built-in glyph list, row {row}: {reason}")]
    Selection { row: usize, reason: String },
    #[error("sticker options: {field} is {found}, expected {expected}")]
    Option {
        field: &'static str,
        found: String,
        expected: String,
    },
    #[error(
        "{what}: only {found} to choose from, {needed} needed; ask for fewer users or a longer glyph list"
    )]
    TooFew {
        what: String,
        found: usize,
        needed: usize,
    },
}

impl StickerError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
