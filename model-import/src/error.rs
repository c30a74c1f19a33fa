//! What can go wrong between a file and a module.

use std::path::{Path, PathBuf};

use crate::report::Mismatch;

/// A checkpoint that cannot be read, does not fit, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The path does not exist.
    #[error("{}: no such file or folder", path.display())]
    NotFound { path: PathBuf },
    /// A folder without a checkpoint under any known name.
    #[error(
        "{}: no checkpoint here. Looked for {looked_for}; the folder holds {found}", path.display()
    )]
    NoCheckpoint {
        path: PathBuf,
        looked_for: String,
        found: String,
    },
    /// The file ends before the tensors its header promises.
    #[error(
        "{}: truncated: the file has {found} bytes, its header promises {expected}; download it again", path.display()
    )]
    Truncated {
        path: PathBuf,
        expected: u64,
        found: u64,
    },
    /// More bytes than the header accounts for.
    #[error(
        "{}: the file has {found} bytes, its header accounts for {expected}: it was damaged or joined with something else",
        path.display()
    )]
    TrailingBytes {
        path: PathBuf,
        expected: u64,
        found: u64,
    },
    /// A git-LFS pointer stands where the weights should be.
    #[error(
        "{}: this is a git-LFS pointer, not the weights{}; run `git lfs pull` in the folder or download the file itself",
        path.display(), size.map(|s| format!(" ({s} bytes)")).unwrap_or_default()
    )]
    LfsPointer { path: PathBuf, size: Option<u64> },
    /// Something else than the format it claims to be.
    #[error("{}: not a safetensors file: {reason}", path.display())]
    NotSafetensors { path: PathBuf, reason: String },
    /// A file of a known format that does not hold what the format demands.
    #[error("{}: not a usable {format} file: {reason}", path.display())]
    BadFile {
        path: PathBuf,
        format: &'static str,
        reason: String,
    },
    /// A pickle that wants more run than the rebuilding of tensors.
    #[error("{}: the pickle calls `{callable}`, which no tensor needs; nothing was run. Do not load this file elsewhere unless you trust its author; ask for a safetensors file, or save the plain `state_dict()` of the model", path.display())]
    Forbidden { path: PathBuf, callable: String },
    /// Weights that hold no numbers.
    #[error("{}: values that are not finite in {}: the file is damaged or its training had diverged; nothing should be computed with it, use an earlier checkpoint or download it again", path.display(), describe_counts(tensors))]
    NotFinite {
        path: PathBuf,
        /// Name in the file and number of such values.
        tensors: Vec<(String, usize)>,
    },
    /// One tensor's entry in the header is wrong.
    #[error("{}: tensor `{name}`: {reason}", path.display())]
    BadTensor {
        path: PathBuf,
        name: String,
        reason: String,
    },
    /// The same name twice.
    #[error("{}: tensor `{name}` stands twice{}", path.display(), other.as_ref().map(|o| format!(": here and in {}", o.display())).unwrap_or_else(|| " in the header".into()))]
    DuplicateTensor {
        path: PathBuf,
        name: String,
        other: Option<PathBuf>,
    },
    /// A shard index that cannot be understood.
    #[error("{}: {reason}", path.display())]
    BadIndex { path: PathBuf, reason: String },
    /// Shards named by the index that are not beside it.
    #[error("{}: missing shards: {}; download them into the same folder", path.display(), shards.join(", "))]
    MissingShards { path: PathBuf, shards: Vec<String> },
    /// A tensor asked for by name that the checkpoint does not have.
    #[error("{}: no tensor `{name}`{}", path.display(), nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    NoTensor {
        path: PathBuf,
        name: String,
        nearest: Option<String>,
    },
    /// Checkpoint and module differ: everything that is missing, unused or misshapen.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
    /// Two names of the file became one name of the module.
    #[error("{}: `{first}` and `{second}` both map to the parameter `{parameter}`; ignore one of them in the key map", path.display())]
    Clash {
        path: PathBuf,
        parameter: String,
        first: String,
        second: String,
    },
    /// A parameter whose hub name does not lead back to it.
    #[error(
        "the key map sends parameter `{parameter}` to `{hub}`, but `{hub}` {back}; reorder or narrow the renames"
    )]
    NotReversible {
        parameter: String,
        hub: String,
        back: String,
    },
    /// A value too large for the chosen data type.
    #[error("tensor `{name}` holds values that {dtype} cannot (beyond 65504); save as bf16 or f32")]
    Overflow { name: String, dtype: &'static str },
    /// A parameter's values could not be read from their device.
    #[error("parameter `{name}`: {reason}")]
    Parameter { name: String, reason: String },
    /// No room left on the disk.
    #[error("{}: the disk is full: {needed} bytes are needed; free some space and run again (the old file, if any, is untouched)", path.display())]
    DiskFull { path: PathBuf, needed: u64 },
}

fn describe_counts(tensors: &[(String, usize)]) -> String {
    let parts = tensors
        .iter()
        .map(|(name, count)| format!("`{name}` ({count})"));
    parts.collect::<Vec<_>>().join(", ")
}

impl ImportError {
    /// A reader was asked for a tensor that its file does not have.
    pub(crate) fn no_tensor(path: &Path, name: &str) -> Self {
        Self::NoTensor {
            path: path.into(),
            name: name.into(),
            nearest: None,
        }
    }

    /// An error of the operating system at `path`.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::NotFound {
            return Self::NotFound { path: path.into() };
        }
        Self::Io {
            path: path.into(),
            source,
        }
    }
}
