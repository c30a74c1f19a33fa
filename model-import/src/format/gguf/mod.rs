//! GGUF, the format of llama.cpp: quantised language models, names and row order of its own.
//!
//! Tensors of the architecture `llama` come under the hub's names ([`crate::maps::gguf`]) and with the
//! rows of the query and key projections in the hub's order: the converter regroups each head's rows
//! from halves to pairs, because the two families rotate different pairs of values. Other
//! architectures keep the file's names and order. Quantised blocks come as f32.

mod blocks;
mod header;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use burn::tensor::{Bytes, TensorData};

use crate::error::ImportError;
use crate::format::{DiskFile, Source, TensorInfo, plain};
use crate::key_map::KeyMap;
use crate::maps;
use blocks::BlockType;
use header::{Entry, Header};

const FORMAT: &str = "GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;

/// An open file: its header in memory, its tensors on disk.
#[derive(Debug)]
pub(crate) struct GgufFile {
    file: DiskFile,
    tensors: BTreeMap<String, TensorInfo>,
    places: BTreeMap<String, Place>,
    metadata: BTreeMap<String, String>,
}

/// Where a tensor's blocks are and how its rows are ordered.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    num_bytes: u64,
    block_type: BlockType,
    /// Number of heads whose rows stand in pairs.
    paired_heads: Option<usize>,
}

impl GgufFile {
    /// Reads and checks the header.
    pub(crate) fn open(file: DiskFile) -> Result<Self, ImportError> {
        let path = file.path().to_path_buf();
        let bad = |reason: String| ImportError::BadFile {
            path: path.clone(),
            format: FORMAT,
            reason,
        };
        let handle = File::open(&path).map_err(|e| ImportError::io(&path, e))?;
        let Header {
            metadata,
            entries,
            end,
        } = header::read(handle, file.size()).map_err(bad)?;
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|a: &u64| a.is_power_of_two() && *a <= 1 << 20)
                .ok_or_else(|| bad(format!("an alignment of {text} bytes; download it again")))?,
        };
        let data_start = end.next_multiple_of(alignment);
        let is_llama = metadata
            .get("general.architecture")
            .is_some_and(|a| a == "llama");
        let names = if is_llama {
            maps::gguf::llama()
        } else {
            KeyMap::identity()
        };
        let mut opened = Self {
            tensors: BTreeMap::new(),
            places: BTreeMap::new(),
            metadata,
            file,
        };
        for entry in entries {
            let Some(name) = names.to_ours(&entry.name) else {
                continue;
            };
            let (info, mut place) = opened.place(&entry, data_start)?;
            if is_llama {
                place.paired_heads = opened.paired_heads(&entry.name, &info)?;
            }
            if opened.tensors.insert(name.clone(), info).is_some() {
                return Err(ImportError::DuplicateTensor {
                    path,
                    name,
                    other: None,
                });
            }
            opened.places.insert(name, place);
        }
        Ok(opened)
    }

    fn bad(&self, name: &str, reason: String) -> ImportError {
        ImportError::BadTensor {
            path: self.file.path().into(),
            name: name.into(),
            reason,
        }
    }

    /// Type, shape and place of a tensor, held against the file's size.
    fn place(&self, entry: &Entry, data_start: u64) -> Result<(TensorInfo, Place), ImportError> {
        let bad = |reason: String| self.bad(&entry.name, reason);
        let block_type = BlockType::of(entry.block_type).map_err(|known| {
            bad(format!(
                "ggml type {}{} is not supported; use a file in F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
                entry.block_type,
                known.map(|n| format!(" ({n})")).unwrap_or_default()
            ))
        })?;
        let (block_values, block_bytes) = block_type.size();
        let row = entry.dimensions.first().copied().unwrap_or(1);
        if row % block_values as u64 != 0 {
            return Err(bad(format!(
                "rows of {row} values do not divide into blocks of {block_values}; download the file again"
            )));
        }
        let impossible = || {
            bad(format!(
                "dimensions {:?} are not possible; download the file again",
                entry.dimensions
            ))
        };
        let num_values = entry
            .dimensions
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(*d))
            .ok_or_else(impossible)?;
        let num_bytes = (num_values / block_values as u64)
            .checked_mul(block_bytes as u64)
            .ok_or_else(impossible)?;
        let offset = data_start
            .checked_add(entry.offset)
            .ok_or_else(impossible)?;
        let end = offset.checked_add(num_bytes).ok_or_else(impossible)?;
        if end > self.file.size() {
            return Err(ImportError::Truncated {
                path: self.file.path().into(),
                expected: end,
                found: self.file.size(),
            });
        }
        let shape = entry.dimensions.iter().rev();
        let info = TensorInfo {
            dtype: block_type.stored(),
            shape: shape
                .map(|d| usize::try_from(*d))
                .collect::<Result<_, _>>()
                .map_err(|_| impossible())?,
        };
        let place = Place {
            offset,
            num_bytes,
            block_type,
            paired_heads: None,
        };
        Ok((info, place))
    }

    /// Number of heads of a query or key projection of a llama, whose rows the converter has regrouped.
    fn paired_heads(&self, name: &str, info: &TensorInfo) -> Result<Option<usize>, ImportError> {
        let keys: &[&str] = if name.contains(".attn_q.") {
            &["llama.attention.head_count"]
        } else if name.contains(".attn_k.") {
            &[
                "llama.attention.head_count_kv",
                "llama.attention.head_count",
            ]
        } else {
            return Ok(None);
        };
        let heads = keys
            .iter()
            .find_map(|key| self.metadata.get(*key))
            .and_then(|text| text.parse::<usize>().ok())
            .filter(|heads| *heads > 0)
            .ok_or_else(|| {
                self.bad(
                    name,
                    format!(
                        "the file lacks `{}`, without which its rows cannot be put in order; convert the model again",
                        keys[0]
                    ),
                )
            })?;
        let rows = info.shape.first().copied().unwrap_or_default();
        if rows % (heads.saturating_mul(2)) != 0 {
            return Err(self.bad(
                name,
                format!(
                    "{rows} rows do not divide into {heads} heads of pairs; convert the model again"
                ),
            ));
        }
        Ok(Some(heads))
    }
}

impl Source for GgufFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn read(&self, name: &str) -> Result<TensorData, ImportError> {
        let (Some(info), Some(place)) = (self.tensors.get(name), self.places.get(name)) else {
            return Err(ImportError::no_tensor(self.path(), name));
        };
        let bytes = self
            .file
            .bytes(place.offset, place.num_bytes)
            .map_err(|e| self.file.changed(name, &e))?;
        let rows = info.shape.first().copied().unwrap_or(1);
        if let BlockType::Plain(_) = place.block_type {
            let bytes = match place.paired_heads {
                Some(heads) if rows > 0 => unpair(&bytes, rows, heads),
                _ => bytes,
            };
            return plain(self.path(), name, info, Bytes::from_bytes_vec(bytes));
        }
        let num_values = info.shape.iter().product();
        let mut values = vec![0f32; num_values];
        match place.paired_heads {
            // Row by row straight to where it belongs.
            Some(heads) if num_values > 0 => {
                let row_values = num_values / rows;
                let row_bytes = bytes.len() / rows;
                for (row, blocks) in bytes.chunks_exact(row_bytes).enumerate() {
                    let to = hub_row(row, rows, heads) * row_values;
                    place
                        .block_type
                        .dequantise(blocks, &mut values[to..to + row_values]);
                }
            }
            _ => place.block_type.dequantise(&bytes, &mut values),
        }
        Ok(TensorData::new(values, info.shape.clone()))
    }
}

/// Where a row of the file belongs: pairs (0, h), (1, h + 1), … of a head become its first and second half.
fn hub_row(row: usize, rows: usize, heads: usize) -> usize {
    let head_rows = rows / heads;
    let (head, place) = (row / head_rows, row % head_rows);
    head * head_rows + place % 2 * (head_rows / 2) + place / 2
}

/// Rows of plain values in the hub's order.
fn unpair(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let row_bytes = bytes.len() / rows;
    let mut ordered = vec![0; bytes.len()];
    for row in 0..rows {
        let to = hub_row(row, rows, heads) * row_bytes;
        ordered[to..to + row_bytes].copy_from_slice(&bytes[row * row_bytes..][..row_bytes]);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_halves() {
        // Two heads of four rows: the converter wrote rows 0 2 1 3 of each.
        let order: Vec<usize> = (0..8).map(|row| hub_row(row, 8, 2)).collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
