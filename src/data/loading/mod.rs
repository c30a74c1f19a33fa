//! From published data sets, and anyone's tables, to the common folder format.
//!
//! A loader reads its source into a [`Gathering`](gathering::Gathering); the rest is common: [`selection`] drops and
//! makes histories, [`output`] writes beside and renames, [`assembling`] holds both together. `docs/data.md` says what
//! to type. Nothing here downloads.

pub mod addresses;
pub mod assembling;
pub mod error;
pub mod gathering;
pub mod movielens;
pub mod output;
pub mod picture_folder;
pub mod picture_names;
pub mod pog;
pub mod recbole;
pub mod rows;
pub mod selection;
pub mod ser30k;
pub mod table;
pub mod text_file;

pub use assembling::LoadReport;
pub use error::LoadError;
pub use selection::{HistoryChoice, SelectionOptions, WithoutPicture};
pub use text_file::Encoding;

use serde::{Deserialize, Serialize};

/// What every loader is asked for beside its own options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadOptions {
    pub selection: SelectionOptions,
    pub encoding: Encoding,
    pub skip_bad: bool,
}
