//! Hub folders: `config.json` and what stands beside it, with errors that say what is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use model_import::{ImportError, write_whole};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::networks::clip::{ClipConfigError, PreprocessingError};
use crate::text::TokenizerError;

/// A hub folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Neither a folder nor anything else.
    #[error("{}: no such folder", .0.display())]
    NotFound(PathBuf),
    /// A file where a folder should be.
    #[error("{}: expected a folder in hub layout (config.json beside the weights), found a file", .0.display())]
    NotAFolder(PathBuf),
    /// A file that the layout needs is not there.
    #[error("{}: no {file} here; the folder holds {found}", .folder.display())]
    MissingFile {
        /// The folder.
        folder: PathBuf,
        /// What was looked for.
        file: &'static str,
        /// What is there.
        found: String,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A configuration that is not JSON or lacks what the architecture needs.
    #[error("{}: {reason}", .path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// The key and what is wrong with it.
        reason: String,
    },
    /// The folder holds another architecture.
    #[error("{}: model_type is {found:?}, expected {expected}", .path.display())]
    ModelType {
        /// The configuration file.
        path: PathBuf,
        /// What the loader reads.
        expected: String,
        /// What the folder holds.
        found: String,
    },
    /// The weights.
    #[error(transparent)]
    Weights(#[from] ImportError),
    /// The tokeniser.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl FolderError {
    /// A file that is not in the folder, with what is.
    pub fn missing(folder: &Path, file: &'static str) -> Self {
        Self::MissingFile {
            folder: folder.to_path_buf(),
            file,
            found: listing(folder),
        }
    }

    /// A CLIP configuration whose sizes make no network.
    pub fn clip(path: &Path, error: ClipConfigError) -> Self {
        Self::Configuration {
            path: path.to_path_buf(),
            reason: error.to_string(),
        }
    }

    /// A preprocessing file that is not understood.
    pub fn preprocessing(path: &Path, error: PreprocessingError) -> Self {
        Self::Configuration {
            path: path.to_path_buf(),
            reason: error.to_string(),
        }
    }
}

/// A folder in hub layout.
#[derive(Debug, Clone)]
pub struct HubFolder {
    path: PathBuf,
    config: Value,
}

impl HubFolder {
    /// Opens a folder by its `config.json`.
    ///
    /// # Errors
    /// When there is no such folder, or no readable `config.json` in it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        Self::open_with(path, "config.json")
    }

    /// Opens a folder by another leading file, such as `model_index.json` or `scheduler_config.json`.
    ///
    /// # Errors
    /// When there is no such folder, or the file is not there or not JSON.
    pub fn open_with(path: &Path, file: &'static str) -> Result<Self, FolderError> {
        if !path.exists() {
            return Err(FolderError::NotFound(path.to_path_buf()));
        }
        if !path.is_dir() {
            return Err(FolderError::NotAFolder(path.to_path_buf()));
        }
        let config =
            read_json(&path.join(file))?.ok_or_else(|| FolderError::missing(path, file))?;
        Ok(Self {
            path: path.to_path_buf(),
            config,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The leading file's content.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// `model_type`, empty when the file does not say.
    pub fn model_type(&self) -> &str {
        self.config
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Makes sure that the folder holds one of `expected`.
    ///
    /// # Errors
    /// When `model_type` names another architecture, or none.
    pub fn expect(&self, expected: &[&str]) -> Result<(), FolderError> {
        if expected.contains(&self.model_type()) {
            return Ok(());
        }
        Err(FolderError::ModelType {
            path: self.path.join("config.json"),
            expected: expected.join(" or "),
            found: self.model_type().to_string(),
        })
    }

    /// The leading file as a configuration type; the error names the key.
    ///
    /// # Errors
    /// When a key is missing or has another type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, FolderError> {
        self.parse_value(&self.config)
    }

    /// A part of the leading file as a configuration type.
    ///
    /// # Errors
    /// When a key is missing or has another type.
    pub fn parse_value<T: DeserializeOwned>(&self, value: &Value) -> Result<T, FolderError> {
        serde_path_to_error::deserialize(value).map_err(|error| FolderError::Configuration {
            path: self.path.join("config.json"),
            reason: format!("{}: {}", error.path(), error.inner()),
        })
    }

    /// The checkpoint in the folder.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn weights(&self) -> Result<model_import::Checkpoint, FolderError> {
        Ok(model_import::Checkpoint::open(&self.path)?)
    }

    /// Another JSON file of the folder; `None` where it does not exist.
    ///
    /// # Errors
    /// When it cannot be read or is not JSON.
    pub fn json(&self, file: &str) -> Result<Option<Value>, FolderError> {
        read_json(&self.path.join(file))
    }

    /// A short name for the weights: a digest over the names and contents of the checkpoint's files.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fingerprint(&self) -> Result<String, FolderError> {
        use sha2::{Digest, Sha256};
        let checkpoint = self.weights()?;
        let mut digest = Sha256::new();
        for path in checkpoint.files() {
            let mut file = fs::File::open(path).map_err(|source| FolderError::Read {
                path: path.to_path_buf(),
                source,
            })?;
            std::io::copy(&mut file, &mut digest).map_err(|source| FolderError::Read {
                path: path.to_path_buf(),
                source,
            })?;
        }
        digest.update(self.config.to_string().as_bytes());
        Ok(format!("{:.16x}", digest.finalize()))
    }
}

/// Reads a JSON file; `None` where it does not exist.
///
/// # Errors
/// When it cannot be read or is not JSON.
pub fn read_json(path: &Path) -> Result<Option<Value>, FolderError> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(|source| FolderError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    serde_json::from_slice(&bytes)
        .or_else(|error| {
            // Python writes numbers that JSON does not have; diffusers' own files hold `-Infinity`.
            let plain = without_infinities(&bytes);
            serde_json::from_slice(&plain).map_err(|_| error)
        })
        .map(Some)
        .map_err(|error| FolderError::Configuration {
            path: path.to_path_buf(),
            reason: format!("not JSON: {error}"),
        })
}

/// The text with `null` in the place of `NaN`, `Infinity` and `-Infinity` outside strings.
fn without_infinities(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some((&byte, after)) = rest.split_first() {
        let word = ["-Infinity", "Infinity", "NaN"]
            .into_iter()
            .find(|word| !quoted && rest.starts_with(word.as_bytes()));
        let taken = match word {
            Some(word) => {
                plain.extend_from_slice(b"null");
                word.len()
            }
            None if quoted && byte == b'\\' && !after.is_empty() => {
                plain.extend_from_slice(&rest[..2]);
                2
            }
            None => {
                quoted ^= byte == b'"';
                plain.push(byte);
                1
            }
        };
        rest = &rest[taken..];
    }
    plain
}

/// Writes a JSON file, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(path: &Path, value: &Value) -> Result<(), FolderError> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
    write_text(path, &text)
}

/// Writes a text file, whole or not at all; its folder is made if need be.
///
/// # Errors
/// When it cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<(), FolderError> {
    write_whole(path, text.as_bytes()).map_err(|source| FolderError::Write {
        path: path.to_path_buf(),
        source,
    })
}

/// The first names in a folder, for error messages.
fn listing(path: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    let more = names.len().saturating_sub(8);
    names.truncate(8);
    match (names.is_empty(), more) {
        (true, _) => "nothing".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}
