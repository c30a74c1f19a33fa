//! Items, histories and their folder on disk.
//!
//! What this room knows: the folder format everyone brings data in ([`folder`], checked by [`check`](mod@check)),
//! pictures and their tensors ([`image`](mod@image), [`pixels`], [`preprocess`]), and the shipped benchmark ([`stickers`]).
//! What it does not: networks, training, and where anything is downloaded from.

pub mod check;
pub mod finding;
pub mod folder;
pub mod history;
pub mod image;
pub mod item;
pub mod pixels;
pub mod preprocess;
pub mod split;
pub mod stickers;
mod table;
