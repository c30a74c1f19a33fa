//! ONNX: the stored tensors of an exported graph, under the names of the network they came from.
//!
//! ONNX has no list of parameters, only tensors that nodes use; [`trace`] finds their names. The file is
//! taken apart by the parser of Burn's own importer, behind the feature `onnx` because that parser is
//! generated while building.

use std::sync::Arc;

#[cfg(feature = "onnx")]
mod graph;
#[cfg(feature = "onnx")]
mod trace;

use crate::error::ImportError;
use crate::format::{DiskFile, Source};

/// Opens an exported graph.
#[cfg(feature = "onnx")]
pub(crate) fn open(file: DiskFile) -> Result<Arc<dyn Source>, ImportError> {
    Ok(Arc::new(graph::OnnxFile::open(&file)?))
}

/// Says what is needed.
#[cfg(not(feature = "onnx"))]
pub(crate) fn open(file: DiskFile) -> Result<Arc<dyn Source>, ImportError> {
    Err(ImportError::BadFile {
        path: file.path().into(),
        format: "ONNX",
        reason: "this program was built without ONNX; build it with `--features onnx`, or use the safetensors file of the same network".into(),
    })
}
