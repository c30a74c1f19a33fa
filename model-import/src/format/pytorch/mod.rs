//! PyTorch's files: a pickle that describes tensors and the raw storages that they view. Zip archives
//! (since PyTorch 1.6) and the older files of pickles in a row. The pickle is read as data ([`pickle`]).

mod archive;
mod container;
mod pickle;
mod rebuild;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::{Bytes, TensorData};

use crate::error::ImportError;
use crate::format::{DiskFile, Source, TensorInfo, plain};
use container::Contents;
use pickle::{Id, Objects, PickleError, Value};
use rebuild::View;

const FORMAT: &str = "PyTorch";
/// Under these keys training programs keep the weights beside other things.
const WRAPPERS: [&str; 2] = ["state_dict", "model_state_dict"];
/// Dictionaries within dictionaries; real files have three at most.
const DEEPEST: usize = 16;
const LONGEST_NAME: usize = 512;
const MOST_TEXTS: usize = 64;

/// An open file: its pickle's tensors in memory, their values on disk.
#[derive(Debug)]
pub(crate) struct PytorchFile {
    file: DiskFile,
    tensors: BTreeMap<String, TensorInfo>,
    places: BTreeMap<String, Place>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Place {
    /// First byte of the storage in the file.
    storage: u64,
    view: View,
    /// First and one past the last value that the view touches.
    span: (u64, u64),
}

impl PytorchFile {
    /// Reads the pickle and checks every tensor against the storages.
    pub(crate) fn open(file: DiskFile) -> Result<Self, ImportError> {
        let path = file.path().to_path_buf();
        let bad = |error: PickleError| match error {
            PickleError::Forbidden(callable) => ImportError::Forbidden {
                path: path.clone(),
                callable,
            },
            PickleError::Broken(reason) => ImportError::BadFile {
                path: path.clone(),
                format: FORMAT,
                reason,
            },
        };
        let Contents {
            objects,
            root,
            pickle_bytes,
            storages,
        } = container::read(&file).map_err(bad)?;
        let views = Names::collect(&objects, root, pickle_bytes).map_err(bad)?;
        let metadata = texts(&objects, root);

        let mut opened = Self {
            tensors: BTreeMap::new(),
            places: BTreeMap::new(),
            metadata,
            file,
        };
        for (name, view) in views {
            let wrong = |reason: String| ImportError::BadTensor {
                path: path.clone(),
                name: name.clone(),
                reason,
            };
            let Some(stored) = storages.get(&view.storage_key) else {
                return Err(wrong(format!(
                    "its storage `{}` is not in the file; download it again",
                    view.storage_key
                )));
            };
            if stored.num_bytes < view.storage_bytes {
                return Err(wrong(format!(
                    "its storage `{}` has {} bytes, {} are promised; download the file again",
                    view.storage_key, stored.num_bytes, view.storage_bytes
                )));
            }
            let place = Place {
                storage: stored.offset,
                span: view.span().map_err(wrong)?,
                view: view.clone(),
            };
            let info = TensorInfo {
                dtype: view.dtype,
                shape: view.shape.clone(),
            };
            opened.tensors.insert(name.clone(), info);
            opened.places.insert(name, place);
        }
        Ok(opened)
    }
}

/// The texts that stand beside the tensors, such as an embedding's `name`.
fn texts(objects: &Objects, root: Id) -> BTreeMap<String, String> {
    let Value::Dict(entries) = objects.get(root) else {
        return BTreeMap::new();
    };
    let short = |text: &&str| text.len() <= LONGEST_NAME;
    let pairs = entries.iter().filter_map(|(key, value)| {
        let key = objects.text(*key).filter(short)?;
        let value = objects.text(*value).filter(short)?;
        Some((key.to_string(), value.to_string()))
    });
    pairs.take(MOST_TEXTS).collect()
}

impl Source for PytorchFile {
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
        let width = place.view.dtype.bits() as u64 / 8;
        let (first, end) = place.span;
        // No overflow: the span lies within the storage, and the storage within the file.
        let bytes = self
            .file
            .bytes(place.storage + first * width, (end - first) * width)
            .map_err(|e| self.file.changed(name, &e))?;
        let bytes = if place.view.is_contiguous() || bytes.is_empty() {
            bytes
        } else {
            place.view.gather(&bytes)
        };
        plain(self.path(), name, info, Bytes::from_bytes_vec(bytes))
    }
}

/// Names of a pickle's tensors: the keys on the way to each, joined by dots.
struct Names<'a> {
    objects: &'a Objects,
    views: BTreeMap<String, &'a View>,
    /// Dictionaries and lists that were entered.
    seen: BTreeSet<Id>,
    /// Bytes that all names together may still take: prefixes must not multiply a small file.
    bytes_left: usize,
}

impl<'a> Names<'a> {
    fn collect(
        objects: &'a Objects,
        root: Id,
        pickle_bytes: usize,
    ) -> Result<BTreeMap<String, &'a View>, PickleError> {
        let Value::Dict(entries) = objects.get(root) else {
            return Err(pickle::broken(
                "it holds no dictionary of named tensors; save `model.state_dict()`",
            ));
        };
        let wrapped = entries.iter().find(|(key, value)| {
            let name = objects.text(*key).unwrap_or_default();
            WRAPPERS.contains(&name) && matches!(objects.get(*value), Value::Dict(_))
        });
        let mut names = Self {
            objects,
            views: BTreeMap::new(),
            seen: BTreeSet::new(),
            bytes_left: (1 << 20) + 8 * pickle_bytes,
        };
        names.enter(wrapped.map_or(root, |(_, value)| *value), "", 0)?;
        if names.views.is_empty() {
            return Err(pickle::broken(
                "it holds no tensors; is it an optimiser's or a tokenizer's file?",
            ));
        }
        Ok(names.views)
    }

    fn enter(&mut self, id: Id, name: &str, depth: usize) -> Result<(), PickleError> {
        let objects = self.objects;
        match objects.get(id) {
            Value::Tensor(view) => self.add(name, view),
            Value::Dict(entries) => {
                self.go_in(id, name, depth, !entries.is_empty())?;
                for (key, value) in entries {
                    let key = match objects.get(*key) {
                        Value::Text(text) => text.to_string(),
                        Value::Int(number) => number.to_string(),
                        // Keyed by classes and the like: nothing that weights are kept under.
                        _ => continue,
                    };
                    self.enter(*value, &join(name, &key)?, depth + 1)?;
                }
                Ok(())
            }
            Value::List(parts) | Value::Tuple(parts) => {
                self.go_in(id, name, depth, !parts.is_empty())?;
                for (index, part) in parts.iter().enumerate() {
                    self.enter(*part, &join(name, &index.to_string())?, depth + 1)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Each collection once: two ways to one would double the tensors beneath at every step.
    fn go_in(&mut self, id: Id, name: &str, depth: usize, full: bool) -> Result<(), PickleError> {
        if depth > DEEPEST {
            return Err(pickle::broken(format!("`{name}` is nested too deep")));
        }
        if full && !self.seen.insert(id) {
            return Err(pickle::broken(format!(
                "`{name}` is the same collection as another one; save plain `state_dict()`s"
            )));
        }
        Ok(())
    }

    fn add(&mut self, name: &str, view: &'a View) -> Result<(), PickleError> {
        self.bytes_left = self
            .bytes_left
            .checked_sub(name.len())
            .ok_or_else(|| pickle::broken("its names take more room than the file"))?;
        match self.views.insert(name.into(), view) {
            None => Ok(()),
            Some(_) => Err(pickle::broken(format!("tensor `{name}` stands twice"))),
        }
    }
}

fn join(parent: &str, key: &str) -> Result<String, PickleError> {
    if parent.len() + key.len() > LONGEST_NAME {
        return Err(pickle::broken("a tensor has too long a name"));
    }
    Ok(if parent.is_empty() {
        key.into()
    } else {
        format!("{parent}.{key}")
    })
}
