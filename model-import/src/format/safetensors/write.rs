//! Writing safetensors files: whole or not at all, equal content as equal bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use burn::tensor::TensorData;

use crate::error::ImportError;
use crate::format::Stored;
use crate::whole::{Temporary, folder_of};

/// A tensor about to be written.
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) dtype: Stored,
    pub(crate) shape: Vec<usize>,
}

/// Writes a file: to a temporary beside it, forced to disk, then renamed.
///
/// `data(i)` gives the bytes of `plan[i]`; one tensor is in memory at a time. The bytes written depend
/// on the arguments only, so equal content gives equal files.
pub(crate) fn write(
    path: &Path,
    plan: &[Planned],
    metadata: &BTreeMap<String, String>,
    mut data: impl FnMut(usize) -> Result<TensorData, ImportError>,
) -> Result<(), ImportError> {
    // Widest types first keeps every tensor aligned, as the reference writer does.
    let mut order: Vec<usize> = (0..plan.len()).collect();
    order.sort_by(|a, b| {
        let key = |i: usize| (std::cmp::Reverse(plan[i].dtype.bits()), &plan[i].name);
        key(*a).cmp(&key(*b))
    });
    let (header, needed) = header(path, plan, &order, metadata)?;
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            ImportError::DiskFull {
                path: path.into(),
                needed,
            }
        }
        _ => ImportError::io(path, e),
    };
    std::fs::create_dir_all(folder_of(path)).map_err(io)?;
    let temporary = Temporary::beside(path);
    let mut file = std::io::BufWriter::new(File::create(temporary.path()).map_err(io)?);
    file.write_all(&header).map_err(io)?;
    for index in order {
        let tensor = data(index)?;
        debug_assert_eq!(tensor.shape.to_vec(), plan[index].shape);
        file.write_all(tensor.as_bytes()).map_err(io)?;
    }
    let file = file.into_inner().map_err(|e| io(e.into_error()))?;
    file.sync_all().map_err(io)?;
    drop(file);
    temporary.rename(path).map_err(io)
}

/// The length, the JSON padded to 8 bytes, and the size of the whole file.
fn header(
    path: &Path,
    plan: &[Planned],
    order: &[usize],
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, u64), ImportError> {
    let mut entries = serde_json::Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut offset = 0u64;
    for index in order {
        let Planned { name, dtype, shape } = &plan[*index];
        let size = dtype
            .num_bytes(shape)
            .ok_or_else(|| ImportError::BadTensor {
                path: path.into(),
                name: name.clone(),
                reason: format!("shape {shape:?} is too large"),
            })? as u64;
        let entry = serde_json::json!({
            "dtype": dtype.to_string(), "shape": shape, "data_offsets": [offset, offset + size],
        });
        if entries.insert(name.clone(), entry).is_some() {
            return Err(ImportError::DuplicateTensor {
                path: path.into(),
                name: name.clone(),
                other: None,
            });
        }
        offset += size;
    }
    let mut json = serde_json::Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    let needed = header.len() as u64 + offset;
    Ok((header, needed))
}
