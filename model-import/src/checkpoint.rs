//! Lazy named tensors of a file, a folder, or shards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{FloatDType, TensorData};
use serde::Deserialize;

use crate::error::ImportError;
use crate::format::{self, Source, TensorInfo};

/// The hub's names for a folder's weights, in the order they are looked for. Safetensors first: where
/// a folder has several formats they hold the same, and this one needs the least trust.
const KNOWN_NAMES: [&str; 15] = [
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "adapter_model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "pytorch_lora_weights.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "adapter_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.bin.index.json",
    "pytorch_lora_weights.bin",
    "model.onnx",
];

/// Endings of names that are taken where no known name is there and one file only has the ending.
const ENDINGS: [&str; 8] = [
    ".safetensors.index.json",
    ".safetensors",
    ".bin.index.json",
    ".bin",
    ".pt",
    ".pth",
    ".gguf",
    ".onnx",
];

/// Named tensors on disk. Opening reads headers only; cloning shares the open files.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Arc<dyn Source>>,
    /// Name to position in `files`.
    owners: BTreeMap<String, usize>,
    /// What `load_into` makes of floats.
    floats: FloatDType,
}

impl Checkpoint {
    /// Opens a weights file, the index of a sharded one, or a folder that holds one of them: safetensors,
    /// PyTorch (`.bin`, `.pt`, `.pth`, `.ckpt`), GGUF or, with the feature `onnx`, ONNX. Files are known
    /// by what they hold, not by their names. Whatever the format, tensors come under the hub's names
    /// and in the hub's layout.
    ///
    /// # Errors
    /// Nothing there, a truncated, foreign or damaged file, missing shards: each says which and what to do.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let kind = std::fs::metadata(path).map_err(|e| ImportError::io(path, e))?;
        let file = if kind.is_dir() {
            find_in_folder(path)?
        } else {
            path.to_path_buf()
        };
        if file.extension().is_some_and(|e| e == "json") {
            Self::open_shards(&file)
        } else {
            let opened = format::open(&file)?;
            Self::join(file, vec![opened])
        }
    }

    /// The same checkpoint, whose floats become `dtype` when they are loaded into a module, one tensor after another; f32
    /// unless said otherwise.
    pub fn in_dtype(mut self, dtype: FloatDType) -> Self {
        self.floats = dtype;
        self
    }

    /// What floats become when they are loaded into a module.
    pub fn float_dtype(&self) -> FloatDType {
        self.floats
    }

    fn open_shards(index_path: &Path) -> Result<Self, ImportError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let bad = |reason: String| ImportError::BadIndex {
            path: index_path.into(),
            reason,
        };
        let text =
            std::fs::read_to_string(index_path).map_err(|e| ImportError::io(index_path, e))?;
        let index: Index = serde_json::from_str(&text)
            .map_err(|e| bad(format!("not a shard index (a `weight_map` is needed): {e}")))?;
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        if let Some(name) = names
            .iter()
            .find(|n| Path::new(n.as_str()).file_name() != Some(n.as_ref()))
        {
            return Err(bad(format!(
                "shard `{name}` is not a plain file name; shards must lie beside their index"
            )));
        }
        let folder = index_path.parent().unwrap_or(Path::new("."));
        let missing: Vec<String> = names
            .iter()
            .filter(|name| !folder.join(name).is_file())
            .map(|name| name.to_string())
            .collect();
        if !missing.is_empty() {
            return Err(ImportError::MissingShards {
                path: index_path.into(),
                shards: missing,
            });
        }
        let files = names
            .iter()
            .map(|name| format::open(&folder.join(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let checkpoint = Self::join(index_path.to_path_buf(), files)?;
        for (tensor, shard) in &index.weight_map {
            let found = checkpoint
                .owners
                .get(tensor)
                .map(|owner| checkpoint.files[*owner].path().to_path_buf());
            if found.as_deref() != Some(&folder.join(shard)) {
                return Err(bad(format!(
                    "says that `{tensor}` is in {shard}, but it is {}",
                    found.map_or("in none of the shards".into(), |p| format!(
                        "in {}",
                        p.display()
                    ))
                )));
            }
        }
        Ok(checkpoint)
    }

    fn join(path: PathBuf, files: Vec<Arc<dyn Source>>) -> Result<Self, ImportError> {
        let mut owners: BTreeMap<String, usize> = BTreeMap::new();
        for (position, file) in files.iter().enumerate() {
            for name in file.tensors().keys() {
                if let Some(first) = owners.insert(name.clone(), position) {
                    return Err(ImportError::DuplicateTensor {
                        path: file.path().into(),
                        name: name.clone(),
                        other: Some(files[first].path().into()),
                    });
                }
            }
        }
        Ok(Self {
            path,
            files,
            owners,
            floats: FloatDType::F32,
        })
    }

    /// The file or index that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path())
    }

    /// Every tensor's name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.owners.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Whether a tensor has this name.
    pub fn contains(&self, name: &str) -> bool {
        self.owners.contains_key(name)
    }

    /// Whether any tensor's name starts with `prefix`, such as `text_model.`.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.owners
            .range(prefix.to_string()..)
            .next()
            .is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// Data type and shape of a tensor, without reading it.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.owners
            .get(name)
            .and_then(|owner| self.files[*owner].tensors().get(name))
    }

    /// Number of values in all tensors together.
    pub fn num_values(&self) -> usize {
        self.names()
            .filter_map(|name| self.info(name))
            .map(|info| info.shape.iter().product::<usize>())
            .sum()
    }

    /// The string metadata of the files; of shards, the first that has a key wins.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for file in self.files.iter().rev() {
            all.extend(file.metadata().clone());
        }
        all
    }

    /// Reads one tensor in its stored data type (quantised ones as f32) and in the hub's layout.
    ///
    /// # Errors
    /// No such tensor (with the nearest name), an unsupported data type, or a file that cannot be read.
    pub fn tensor(&self, name: &str) -> Result<TensorData, ImportError> {
        let Some(owner) = self.owners.get(name) else {
            return Err(ImportError::NoTensor {
                path: self.path.clone(),
                name: name.into(),
                nearest: self.nearest(name),
            });
        };
        self.files[*owner].read(name)
    }

    /// The name that shares the longest ending with `name`: prefixes are what usually differs.
    fn nearest(&self, name: &str) -> Option<String> {
        let shared = |other: &str| {
            let pairs = name.rsplit('.').zip(other.rsplit('.'));
            pairs.take_while(|(a, b)| a == b).count()
        };
        self.names()
            .max_by_key(|other| shared(other))
            .filter(|other| shared(other) > 0)
            .map(String::from)
    }
}

/// The checkpoint file of a folder: a known name, else the only index or `.safetensors` file.
fn find_in_folder(folder: &Path) -> Result<PathBuf, ImportError> {
    if let Some(found) = KNOWN_NAMES
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
    {
        return Ok(found);
    }
    let entries = std::fs::read_dir(folder).map_err(|e| ImportError::io(folder, e))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| ImportError::io(folder, e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for ending in ENDINGS {
        let mut matching = names
            .iter()
            .filter(|n| n.ends_with(ending) && !n.starts_with('.'));
        if let (Some(only), None) = (matching.next(), matching.next()) {
            return Ok(folder.join(only));
        }
    }
    Err(ImportError::NoCheckpoint {
        path: folder.into(),
        looked_for: format!(
            "{} or a single file ending in {}",
            KNOWN_NAMES.join(", "),
            ENDINGS.join(", ")
        ),
        found: if names.is_empty() {
            "nothing".into()
        } else {
            names.join(", ")
        },
    })
}
