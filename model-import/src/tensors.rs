//! Whole files as maps from names to values: optimiser states, features, golden files.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;

use crate::checkpoint::Checkpoint;
use crate::error::ImportError;
use crate::format::Stored;
use crate::format::safetensors::{Planned, write};

/// Every tensor of a file, a folder or shards, in its stored data type.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::tensor`].
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, TensorData>, ImportError> {
    Ok(read_tensors_with_metadata(path)?.0)
}

/// Every tensor, and the string metadata.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::tensor`].
#[allow(clippy::type_complexity)]
pub fn read_tensors_with_metadata(
    path: &Path,
) -> Result<(BTreeMap<String, TensorData>, BTreeMap<String, String>), ImportError> {
    let checkpoint = Checkpoint::open(path)?;
    let tensors = checkpoint
        .names()
        .map(|name| Ok((name.to_string(), checkpoint.tensor(name)?)))
        .collect::<Result<_, ImportError>>()?;
    Ok((tensors, checkpoint.metadata()))
}

/// Writes named tensors as a safetensors file: to a temporary beside it, forced to disk, then renamed.
///
/// # Errors
/// A data type the format lacks, a full disk, or a file that cannot be written. The old file stays then.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, TensorData>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), ImportError> {
    let plan = tensors
        .iter()
        .map(|(name, data)| {
            let dtype = Stored::of(data.dtype).ok_or_else(|| ImportError::BadTensor {
                path: path.into(),
                name: name.clone(),
                reason: format!("safetensors has no data type for {:?}", data.dtype),
            })?;
            Ok(Planned {
                name: name.clone(),
                dtype,
                shape: data.shape.to_vec(),
            })
        })
        .collect::<Result<Vec<_>, ImportError>>()?;
    write(path, &plan, metadata, |index| {
        Ok(tensors[&plan[index].name].clone())
    })
}
