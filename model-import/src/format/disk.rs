//! A file on disk, read at given places and never beyond its end.
//!
//! Plain tensors are mapped: a weight that is used as it stands in the file takes no memory of its own, and processes
//! that use the same file share it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use burn::tensor::{AllocationProperty, Bytes, DType, TensorData};

use crate::error::ImportError;
use crate::format::TensorInfo;

/// An open file and its size when it was opened.
#[derive(Debug)]
pub(crate) struct DiskFile {
    path: PathBuf,
    file: Mutex<File>,
    size: u64,
    /// The whole file as memory, from the first tensor on; none where the system refuses.
    mapping: OnceLock<Option<bytes::Bytes>>,
}

impl DiskFile {
    pub(crate) fn open(path: &Path) -> Result<Self, ImportError> {
        let io = |e| ImportError::io(path, e);
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        Ok(Self {
            path: path.into(),
            file: Mutex::new(file),
            size,
            mapping: OnceLock::new(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The first bytes, at most `limit` of them.
    pub(crate) fn start(&self, limit: u64) -> Result<Vec<u8>, ImportError> {
        self.bytes(0, limit.min(self.size))
            .map_err(|e| ImportError::io(&self.path, e))
    }

    /// `length` bytes from `offset` on. Memory is taken only for what the file has.
    pub(crate) fn bytes(&self, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.size) {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(length).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        let mut bytes = vec![0; length];
        // A poisoned lock only means that another reader panicked: the position is set below anyway.
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// A whole tensor of plain values that stands in the file as it is.
    pub(crate) fn tensor(
        &self,
        name: &str,
        info: &TensorInfo,
        offset: u64,
    ) -> Result<TensorData, ImportError> {
        let num_bytes = info.dtype.num_bytes(&info.shape).unwrap_or(usize::MAX);
        let width = info.dtype.burn().map_or(8, |dtype| dtype.size());
        let bytes = match self.mapped(offset, num_bytes, width) {
            Some(bytes) => bytes,
            None => self
                .bytes(offset, num_bytes as u64)
                .map(Bytes::from_bytes_vec)
                .map_err(|e| self.changed(name, &e))?,
        };
        plain(&self.path, name, info, bytes)
    }

    /// A part of the mapped file, if the file is still as long as it was and values of `width` bytes lie there as a
    /// processor wants them. Weights on the hub and our own are never written over in place, only replaced: what is mapped stays whole.
    fn mapped(&self, offset: u64, length: usize, width: usize) -> Option<Bytes> {
        let mapping = self.mapping.get_or_init(|| {
            let file = self.file.lock().unwrap_or_else(|e| e.into_inner());
            // SAFETY: the mapping is only read. Should another program cut the file short later, the system ends this
            // one when it touches what is gone; every reader that maps weights has this, the format's own included.
            let mapping = unsafe { memmap2::Mmap::map(&*file) }.ok()?;
            Some(bytes::Bytes::from_owner(mapping))
        });
        let mapping = mapping.as_ref()?;
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(length)?;
        let now = std::fs::metadata(&self.path).ok()?.len();
        if length == 0 || end > mapping.len() || now < self.size {
            return None;
        }
        let part = mapping.slice(start..end);
        let aligned = (part.as_ptr() as usize).is_multiple_of(width);
        aligned.then(|| Bytes::from_shared(part, AllocationProperty::File))
    }

    /// What to say when a tensor that was there at opening cannot be read.
    pub(crate) fn changed(&self, name: &str, error: &std::io::Error) -> ImportError {
        ImportError::BadTensor {
            path: self.path.clone(),
            name: name.into(),
            reason: format!("{error} (did the file change while it was open?)"),
        }
    }
}

/// Little-endian bytes as a tensor of its stored data type.
pub(crate) fn plain(
    path: &Path,
    name: &str,
    info: &TensorInfo,
    bytes: Bytes,
) -> Result<TensorData, ImportError> {
    let bad = |reason: String| ImportError::BadTensor {
        path: path.into(),
        name: name.into(),
        reason,
    };
    let dtype = info.dtype.burn().ok_or_else(|| {
        bad(format!(
            "data type {} is not supported; use f16, bf16 or f32 weights",
            info.dtype
        ))
    })?;
    if matches!(dtype, DType::Bool(_)) && bytes.iter().any(|b| *b > 1) {
        return Err(bad(
            "a boolean that is neither 0 nor 1; download the file again".into(),
        ));
    }
    Ok(TensorData::from_bytes(bytes, info.shape.clone(), dtype))
}
