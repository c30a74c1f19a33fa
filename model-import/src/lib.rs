//! Foreign checkpoints into Burn modules, and back.
//!
//! A [`Checkpoint`] is a lazy map from hub names to tensors: a file, a folder or a set of shards. A
//! [`KeyMap`] says which hub name is which module path. [`load_into`] joins the two strictly: nothing
//! missing, nothing unused, every shape right, or the module stays as it was. [`save_from`] is its
//! inverse and writes files that the hub's own libraries read.
//!
//! This crate knows file formats and names. It does not know the networks, nor where files come from.

mod checkpoint;
mod convert;
mod error;
mod format;
mod key_map;
pub mod maps;
mod module;
mod report;
mod tensors;
mod transform;
mod whole;

pub use checkpoint::Checkpoint;
pub use convert::convert_file;
pub use error::ImportError;
pub use format::{Stored, TensorInfo};
pub use key_map::KeyMap;
pub use module::{SaveDtype, hub_shapes, load_into, load_partial, save_from};
pub use report::{LoadReport, Mismatch, Misshapen};
pub use tensors::{read_tensors, read_tensors_with_metadata, write_tensors};
pub use whole::write_whole;
