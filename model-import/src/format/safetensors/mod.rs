//! The safetensors format: an 8-byte length, a JSON header, raw little-endian tensors.
//!
//! The header is read here rather than by the `safetensors` crate, because that one wants the whole
//! file in memory, keeps the last of two equal names silently, and does not say what was expected.

mod write;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::error::ImportError;
use crate::format::{DiskFile, Source, Stored, TensorInfo};

pub(crate) use write::{Planned, write};

/// The format's own limit for headers; a larger length means another format.
const LARGEST_HEADER: u64 = 100_000_000;
const LFS_MAGIC: &[u8] = b"version https://git-lfs";

/// An open file: its header in memory, its tensors on disk.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    file: DiskFile,
    tensors: BTreeMap<String, TensorInfo>,
    /// First byte of each tensor, counted from the start of the file.
    offsets: BTreeMap<String, u64>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The header with its entries in file order, equal names kept apart.
struct Header {
    metadata: BTreeMap<String, String>,
    entries: Vec<(String, Entry)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map from tensor names to dtype, shape and data_offsets")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header {
                    metadata: BTreeMap::new(),
                    entries: Vec::new(),
                };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map
                            .next_value::<Option<BTreeMap<String, String>>>()?
                            .unwrap_or_default();
                    } else {
                        header.entries.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl SafetensorsFile {
    /// Reads and checks the header.
    pub(crate) fn open(file: DiskFile) -> Result<Self, ImportError> {
        let path = file.path();
        let header_size = header_size(path, &file.start(512)?, file.size())?;
        let json = file
            .bytes(8, header_size)
            .map_err(|e| ImportError::io(path, e))?;
        let header: Header =
            serde_json::from_slice(&json).map_err(|e| ImportError::NotSafetensors {
                path: path.into(),
                reason: format!("its header is not valid: {e}; download it again"),
            })?;
        let (tensors, offsets) = check_entries(path, header.entries, 8 + header_size, file.size())?;
        Ok(Self {
            file,
            tensors,
            offsets,
            metadata: header.metadata,
        })
    }
}

impl Source for SafetensorsFile {
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
        let (Some(info), Some(offset)) = (self.tensors.get(name), self.offsets.get(name)) else {
            return Err(ImportError::no_tensor(self.path(), name));
        };
        self.file.tensor(name, info, *offset)
    }
}

/// The header's length, or what the file is instead.
fn header_size(path: &Path, start: &[u8], file_size: u64) -> Result<u64, ImportError> {
    let foreign = |reason: &str| ImportError::NotSafetensors {
        path: path.into(),
        reason: reason.into(),
    };
    if start.starts_with(LFS_MAGIC) {
        let text = String::from_utf8_lossy(start);
        let size = text
            .lines()
            .find_map(|line| line.strip_prefix("size ")?.trim().parse().ok());
        return Err(ImportError::LfsPointer {
            path: path.into(),
            size,
        });
    }
    if start.is_empty() {
        return Err(foreign("the file is empty"));
    }
    if start.trim_ascii_start().starts_with(b"<") {
        return Err(foreign(
            "it is a web page; the download probably asked for a login",
        ));
    }
    if start.get(257..262) == Some(b"ustar") {
        return Err(foreign(
            "it is a tar archive, PyTorch's first format; load and save it again with a current PyTorch",
        ));
    }
    let Some(length) = start.first_chunk::<8>() else {
        return Err(foreign("it is shorter than the 8 bytes of a header length"));
    };
    let size = u64::from_le_bytes(*length);
    // The format says that a header starts with a brace: without it the length is not a length.
    if !(2..=LARGEST_HEADER).contains(&size) || start.get(8).is_some_and(|b| *b != b'{') {
        return Err(foreign(
            "it does not start with a header, nor as PyTorch's, GGUF's or (by its name) ONNX's files do",
        ));
    }
    if 8 + size > file_size {
        return Err(ImportError::Truncated {
            path: path.into(),
            expected: 8 + size,
            found: file_size,
        });
    }
    Ok(size)
}

/// Every entry must be what its shape says, and together they must cover the file exactly.
fn check_entries(
    path: &Path,
    entries: Vec<(String, Entry)>,
    data_start: u64,
    file_size: u64,
) -> Result<(BTreeMap<String, TensorInfo>, BTreeMap<String, u64>), ImportError> {
    let mut tensors = BTreeMap::new();
    let mut offsets = BTreeMap::new();
    let mut spans = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let bad = |reason: String| ImportError::BadTensor {
            path: path.into(),
            name: name.clone(),
            reason,
        };
        let dtype: Dtype = serde_json::from_value(serde_json::Value::String(entry.dtype.clone()))
            .map_err(|_| bad(format!("unknown data type `{}`", entry.dtype)))?;
        let dtype = Stored::plain(dtype);
        let num_bytes = dtype
            .num_bytes(&entry.shape)
            .ok_or_else(|| bad(format!("shape {:?} is not possible", entry.shape)))?;
        let (begin, end) = entry.data_offsets;
        if end.checked_sub(begin) != Some(num_bytes as u64) {
            return Err(bad(format!(
                "shape {:?} of {dtype} takes {num_bytes} bytes, its offsets are {begin}..{end}",
                entry.shape
            )));
        }
        if tensors.contains_key(&name) {
            return Err(ImportError::DuplicateTensor {
                path: path.into(),
                name,
                other: None,
            });
        }
        spans.push((begin, end, name.clone()));
        let offset = data_start
            .checked_add(begin)
            .ok_or_else(|| bad("its offset is not possible".into()))?;
        offsets.insert(name.clone(), offset);
        let shape = entry.shape;
        tensors.insert(name, TensorInfo { dtype, shape });
    }
    spans.sort();
    let mut next = 0;
    for (begin, end, name) in &spans {
        if *begin != next {
            return Err(ImportError::BadTensor {
                path: path.into(),
                name: name.clone(),
                reason: format!("starts at byte {begin}, the tensor before it ends at {next}"),
            });
        }
        next = *end;
    }
    let expected = data_start.saturating_add(next);
    let path = path.to_path_buf();
    match file_size {
        found if found < expected => Err(ImportError::Truncated {
            path,
            expected,
            found,
        }),
        found if found > expected => Err(ImportError::TrailingBytes {
            path,
            expected,
            found,
        }),
        _ => Ok((tensors, offsets)),
    }
}
