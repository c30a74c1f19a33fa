//! Any checkpoint as one safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::error::ImportError;
use crate::format::Stored;
use crate::format::safetensors::{Planned, write};
use crate::module::{SaveDtype, overflows};
use crate::transform::cast_float;

/// Writes every tensor under its own name, floats in `dtype`, the rest as it is. One tensor is in memory at a time, and
/// the file appears whole or not at all.
///
/// # Errors
/// A tensor that cannot be read, a value too large for f16, a full disk. An older file stays then.
pub fn convert_file(
    checkpoint: &Checkpoint,
    path: &Path,
    dtype: SaveDtype,
) -> Result<(), ImportError> {
    let names: Vec<&str> = checkpoint.names().collect();
    let mut plan = Vec::with_capacity(names.len());
    for name in &names {
        let Some(info) = checkpoint.info(name) else {
            continue;
        };
        let stored = info.dtype.burn().ok_or_else(|| ImportError::BadTensor {
            path: checkpoint.path().into(),
            name: name.to_string(),
            reason: format!("{} cannot be converted", info.dtype),
        })?;
        let stored = if stored.is_float() {
            dtype.burn()
        } else {
            stored
        };
        plan.push(Planned {
            name: name.to_string(),
            dtype: Stored::of(stored).ok_or_else(|| ImportError::BadTensor {
                path: checkpoint.path().into(),
                name: name.to_string(),
                reason: format!("safetensors has no data type for {stored:?}"),
            })?,
            shape: info.shape.clone(),
        });
    }
    let mut metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    metadata.extend(checkpoint.metadata());
    write(path, &plan, &metadata, |index| {
        let name = &plan[index].name;
        let data = checkpoint.tensor(name)?;
        if dtype == SaveDtype::F16 && overflows(&data) {
            return Err(ImportError::Overflow {
                name: name.clone(),
                dtype: "f16",
            });
        }
        Ok(cast_float(data, dtype.burn()))
    })
}
