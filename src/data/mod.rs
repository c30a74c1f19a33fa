//! Items, histories and their folder on disk.
//!
//! What this room knows: the folder format everyone brings data in ([`folder`], checked by [`check`](mod@check)),
//! pictures and their tensors ([`image`](mod@image), [`pixels`], [`preprocess`]), the shipped benchmark ([`stickers`]),
//! how published data sets become such a folder ([`loading`]) and how its pictures come from the web ([`fetching`]).
//! What it does not: networks and training.

pub mod check;
pub mod fetching;
pub mod finding;
pub mod folder;
pub mod history;
pub mod image;
pub mod item;
pub mod loading;
pub mod pixels;
pub mod preprocess;
pub mod split;
pub mod stickers;
mod table;
