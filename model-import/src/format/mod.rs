//! File formats. Each reader takes in names, data types, shapes and places when a file is opened, and
//! one tensor's values when that tensor is asked for.
//!
//! Files are not trusted: every count and offset is held against the file's size before memory is
//! taken for it, and nothing that a file says is ever run.

mod disk;
pub(crate) mod gguf;
pub(crate) mod onnx;
pub(crate) mod pytorch;
pub(crate) mod safetensors;
mod tensor;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::TensorData;

pub(crate) use disk::{DiskFile, plain};
pub use tensor::{Stored, TensorInfo};

use crate::error::ImportError;

/// An open file of any format.
pub(crate) trait Source: Debug + Send + Sync {
    /// The file.
    fn path(&self) -> &Path;
    /// Every tensor under its hub name.
    fn tensors(&self) -> &BTreeMap<String, TensorInfo>;
    /// What the file says about itself, as text.
    fn metadata(&self) -> &BTreeMap<String, String>;
    /// One tensor in the hub's layout: in its stored data type, quantised ones as f32.
    fn read(&self, name: &str) -> Result<TensorData, ImportError>;
}

/// Opens a file by what it holds; only ONNX, which has no mark of its own, goes by its name.
pub(crate) fn open(path: &Path) -> Result<Arc<dyn Source>, ImportError> {
    let file = DiskFile::open(path)?;
    let start = file.start(512)?;
    // A header length may look like any other format's mark; the brace after it cannot.
    let is_safetensors = start.get(8) == Some(&b'{')
        && start
            .first_chunk()
            .is_some_and(|l| u64::from_le_bytes(*l) < 1 << 40);
    if is_safetensors {
        return Ok(Arc::new(safetensors::SafetensorsFile::open(file)?));
    }
    if start.starts_with(b"GGUF") {
        return Ok(Arc::new(gguf::GgufFile::open(file)?));
    }
    if start.starts_with(b"PK\x03\x04") || matches!(start[..], [0x80, 2..=5, ..]) {
        return Ok(Arc::new(pytorch::PytorchFile::open(file)?));
    }
    let named_onnx = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
    // A graph starts with its version's field; what does not may be a pointer or a web page.
    if named_onnx && start.first() == Some(&0x08) {
        return onnx::open(file);
    }
    Ok(Arc::new(safetensors::SafetensorsFile::open(file)?))
}
