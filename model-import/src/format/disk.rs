//! A file on disk, read at given places and never beyond its end.
//!
//! Plain tensors are mapped: a weight that is used as it stands in the file takes no memory of its own, and processes
//! that use the same file share it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use burn::tensor::{AllocationProperty, Bytes, DType, TensorData};

use crate::error::ImportError;
use crate::format::TensorInfo;

/// Bytes from which a tensor is mapped rather than read: sixteen of the system's pages.
const WORTH_MAPPING: usize = 1 << 16;

/// An open file and its size when it was opened.
#[derive(Debug)]
pub(crate) struct DiskFile {
    path: PathBuf,
    file: Mutex<File>,
    size: u64,
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

    /// A part of the file as memory, if it is worth it, the file is still as long as it was, and values of `width` bytes lie
    /// there as a processor wants them. Weights on the hub and our own are never written over in place, only replaced: what
    /// is mapped stays whole.
    fn mapped(&self, offset: u64, length: usize, width: usize) -> Option<Bytes> {
        let file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        let within = offset.checked_add(length as u64)? <= self.size;
        if length < WORTH_MAPPING || !within || file.metadata().ok()?.len() < self.size {
            return None;
        }
        let mut options = memmap2::MmapOptions::new();
        // SAFETY: the mapping is only read. Should another program cut the file short later, the system ends this one when
        // it touches what is gone; every reader that maps weights has this, the format's own included.
        let mapping = unsafe { options.offset(offset).len(length).map(&*file) }.ok()?;
        let aligned = (mapping.as_ptr() as usize).is_multiple_of(width);
        let shared = bytes::Bytes::from_owner(mapping);
        aligned.then(|| Bytes::from_shared(shared, AllocationProperty::File))
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
