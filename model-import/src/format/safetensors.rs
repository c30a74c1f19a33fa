//! The safetensors format: an 8-byte length, a JSON header, raw little-endian tensors.
//!
//! The header is read here rather than by the `safetensors` crate, because that one wants the whole
//! file in memory, keeps the last of two equal names silently, and does not say what was expected.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use burn::tensor::{BoolStore, DType, TensorData};
use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::error::ImportError;

/// The format's own limit for headers; a larger length means another format.
const LARGEST_HEADER: u64 = 100_000_000;
const LFS_MAGIC: &[u8] = b"version https://git-lfs";

/// A tensor as its header describes it.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Data type in the file.
    pub dtype: Stored,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// First byte, counted from the start of the file.
    offset: u64,
    num_bytes: usize,
}

/// Data type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored(Dtype);

impl Stored {
    /// Burn's data type, where it has one.
    pub fn burn(self) -> Option<DType> {
        Some(match self.0 {
            Dtype::BOOL => DType::Bool(BoolStore::Native),
            Dtype::U8 => DType::U8,
            Dtype::I8 => DType::I8,
            Dtype::U16 => DType::U16,
            Dtype::I16 => DType::I16,
            Dtype::U32 => DType::U32,
            Dtype::I32 => DType::I32,
            Dtype::U64 => DType::U64,
            Dtype::I64 => DType::I64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            _ => return None,
        })
    }

    /// The stored form of a Burn data type.
    pub(crate) fn of(dtype: DType) -> Option<Self> {
        Some(Self(match dtype {
            DType::Bool(BoolStore::Native | BoolStore::U8) => Dtype::BOOL,
            DType::U8 => Dtype::U8,
            DType::I8 => Dtype::I8,
            DType::U16 => Dtype::U16,
            DType::I16 => Dtype::I16,
            DType::U32 => Dtype::U32,
            DType::I32 => Dtype::I32,
            DType::U64 => Dtype::U64,
            DType::I64 => Dtype::I64,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::F32 | DType::Flex32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            _ => return None,
        }))
    }

    fn num_bytes(self, shape: &[usize]) -> Option<usize> {
        let bits = shape
            .iter()
            .try_fold(1usize, |n, d| n.checked_mul(*d))?
            .checked_mul(self.0.bitsize())?;
        (bits % 8 == 0).then_some(bits / 8)
    }
}

impl std::fmt::Display for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An open file: its header in memory, its tensors on disk.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    path: PathBuf,
    file: Mutex<File>,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
    pub(crate) metadata: BTreeMap<String, String>,
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
    /// Reads and checks the header of `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, ImportError> {
        let io = |e| ImportError::io(path, e);
        let mut file = File::open(path).map_err(io)?;
        let file_size = file.metadata().map_err(io)?.len();
        let mut start = Vec::with_capacity(512);
        Read::by_ref(&mut file)
            .take(512)
            .read_to_end(&mut start)
            .map_err(io)?;
        let header_size = header_size(path, &start, file_size)?;

        let mut json = vec![0; header_size as usize];
        file.seek(SeekFrom::Start(8)).map_err(io)?;
        file.read_exact(&mut json).map_err(io)?;
        let header: Header =
            serde_json::from_slice(&json).map_err(|e| ImportError::NotSafetensors {
                path: path.into(),
                reason: format!("its header is not valid: {e}"),
            })?;
        let tensors = check_entries(path, header.entries, 8 + header_size, file_size)?;
        Ok(Self {
            path: path.into(),
            file: Mutex::new(file),
            tensors,
            metadata: header.metadata,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads one tensor in its stored data type.
    pub(crate) fn read(&self, name: &str) -> Result<TensorData, ImportError> {
        let Some(info) = self.tensors.get(name) else {
            return Err(ImportError::NoTensor {
                path: self.path.clone(),
                name: name.into(),
                nearest: None,
            });
        };
        let bad = |reason: String| ImportError::BadTensor {
            path: self.path.clone(),
            name: name.into(),
            reason,
        };
        let dtype = info
            .dtype
            .burn()
            .ok_or_else(|| bad(format!("data type {} is not supported", info.dtype)))?;
        let mut bytes = vec![0; info.num_bytes];
        {
            // A poisoned lock only means that another reader panicked: the position is set below anyway.
            let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
            file.seek(SeekFrom::Start(info.offset))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|e| bad(format!("{e} (did the file change while it was open?)")))?;
        }
        if matches!(dtype, DType::Bool(_)) && bytes.iter().any(|b| *b > 1) {
            return Err(bad("a boolean that is neither 0 nor 1".into()));
        }
        Ok(TensorData::from_bytes_vec(bytes, info.shape.clone(), dtype))
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
    if start.starts_with(b"PK\x03\x04") || start.starts_with(&[0x80, 0x02]) {
        return Err(foreign(
            "it is a PyTorch pickle (.bin, .pt); convert it to safetensors first",
        ));
    }
    if start.starts_with(b"GGUF") {
        return Err(foreign(
            "it is a GGUF file; use the safetensors files of the same model",
        ));
    }
    if start.trim_ascii_start().starts_with(b"<") {
        return Err(foreign(
            "it is a web page; the download probably asked for a login",
        ));
    }
    let Some(length) = start.first_chunk::<8>() else {
        return Err(foreign("it is shorter than the 8 bytes of a header length"));
    };
    let size = u64::from_le_bytes(*length);
    // The format says that a header starts with a brace: without it the length is not a length.
    if !(2..=LARGEST_HEADER).contains(&size) || start.get(8).is_some_and(|b| *b != b'{') {
        return Err(foreign("it does not start with a header"));
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
) -> Result<BTreeMap<String, TensorInfo>, ImportError> {
    let mut tensors = BTreeMap::new();
    let mut spans = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let bad = |reason: String| ImportError::BadTensor {
            path: path.into(),
            name: name.clone(),
            reason,
        };
        let dtype: Dtype = serde_json::from_value(serde_json::Value::String(entry.dtype.clone()))
            .map_err(|_| bad(format!("unknown data type `{}`", entry.dtype)))?;
        let dtype = Stored(dtype);
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
        tensors.insert(
            name,
            TensorInfo {
                dtype,
                shape: entry.shape,
                offset,
                num_bytes,
            },
        );
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
        _ => Ok(tensors),
    }
}

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
        let key = |i: usize| (std::cmp::Reverse(plan[i].dtype.0.bitsize()), &plan[i].name);
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
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(io)?;
    let temporary = Temporary::beside(path);
    let mut file = std::io::BufWriter::new(File::create(&temporary.0).map_err(io)?);
    file.write_all(&header).map_err(io)?;
    for index in order {
        let tensor = data(index)?;
        debug_assert_eq!(tensor.shape.to_vec(), plan[index].shape);
        file.write_all(tensor.as_bytes()).map_err(io)?;
    }
    let file = file.into_inner().map_err(|e| io(e.into_error()))?;
    file.sync_all().map_err(io)?;
    drop(file);
    std::fs::rename(&temporary.0, path).map_err(io)?;
    // The rename itself must survive a crash too; not every file system lets a folder be synced.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
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

/// A half-written file, removed unless it was renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self(path.with_file_name(format!(
            ".{name}.{}-{}.partial",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        )))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}
