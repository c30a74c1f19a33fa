//! Items, histories and their folder on disk.

pub mod check;
pub mod folder;
pub mod history;
pub mod image;
pub mod item;
pub mod split;
pub mod stickers;
