//! Checkpoints that are whole or absent.
//!
//! `step-N.tmp/` is written and synced file by file, then its manifest (sha256 and size of each file),
//! then the folder is renamed. Resuming takes the newest one whose manifest verifies.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::device_failure::{self, DeviceFailure};
use super::parameters::NamedTensors;

const SCHEMA: u32 = 1;
const MANIFEST: &str = "manifest.json";

/// What a training loop needs to go on as if it had never stopped.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checkpoint {
    /// Steps taken.
    pub step: usize,
    /// Groups of tensors, one file each: `parameters`, `optimizer`, `average`, …
    pub tensors: BTreeMap<String, NamedTensors>,
    /// Anything else: running statistics, the best score so far.
    pub values: serde_json::Value,
}

impl Checkpoint {
    /// The group `name`, empty when it was not saved.
    pub fn group(&self, name: &str) -> NamedTensors {
        self.tensors.get(name).cloned().unwrap_or_default()
    }
}

/// A checkpoint that cannot be written or taken up.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{path}: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The run was configured otherwise.
    #[error(
        "{path} was written under another configuration ({changes}): \
         restore the configuration, or start in a new folder"
    )]
    Configuration { path: PathBuf, changes: String },
    /// Written by a version of the program that saved other things.
    #[error(
        "{path} has schema {found}, this program reads {expected}: finish the run with the version that began it, \
         or start in a new folder"
    )]
    Schema {
        path: PathBuf,
        expected: u32,
        found: u32,
    },
    /// The numbers may be wrong.
    #[error("{0}")]
    Device(#[from] DeviceFailure),
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    schema: u32,
    step: usize,
    configuration: String,
    /// The configuration itself, so that a refusal can say what changed.
    #[serde(default)]
    settings: serde_json::Value,
    files: BTreeMap<String, FileEntry>,
    values: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileEntry {
    size: u64,
    sha256: String,
}

/// The checkpoints of one run: `<root>/step-N/`.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    root: PathBuf,
    configuration: String,
    settings: serde_json::Value,
    keep: usize,
    accept_changes: bool,
}

impl CheckpointStore {
    /// Checkpoints under `root`, the newest `keep` (at least two) kept, of a run whose configuration
    /// serialises to `configuration`.
    pub fn new(root: &Path, configuration: &impl Serialize, keep: usize) -> Self {
        let text = serde_json::to_string(configuration).unwrap_or_default();
        Self {
            root: root.to_path_buf(),
            configuration: format!("{:.16x}", Sha256::digest(text.as_bytes())),
            settings: serde_json::to_value(configuration).unwrap_or_default(),
            keep: keep.max(2),
            accept_changes: false,
        }
    }

    /// Whether a run may go on under another configuration than it began with.
    pub fn accepting_changes(mut self, accept: bool) -> Self {
        self.accept_changes = accept;
        self
    }

    /// Writes `checkpoint` and removes the oldest ones beyond those kept.
    ///
    /// # Errors
    /// When a file cannot be written, or the device has lost work; what stood before stays whole.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf, CheckpointError> {
        device_failure::check()?;
        let target = self.root.join(format!("step-{}", checkpoint.step));
        let temporary = self.root.join(format!("step-{}.tmp", checkpoint.step));
        let at = |path: &Path, source| CheckpointError::File {
            path: path.to_path_buf(),
            source,
        };
        fs::create_dir_all(&self.root).map_err(|e| at(&self.root, e))?;
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(|e| at(&temporary, e))?;
        }
        let written = self.write(checkpoint, &temporary);
        if written.is_err() {
            // A full disk: what half a checkpoint takes is of more use to others.
            let _ = fs::remove_dir_all(&temporary);
        }
        written?;
        if target.exists() {
            fs::remove_dir_all(&target).map_err(|e| at(&target, e))?;
        }
        fs::rename(&temporary, &target).map_err(|e| at(&target, e))?;
        sync_folder(&self.root).map_err(|e| at(&self.root, e))?;
        for (_, old) in self.steps().into_iter().rev().skip(self.keep) {
            fs::remove_dir_all(&old).map_err(|e| at(&old, e))?;
        }
        Ok(target)
    }

    /// Every file of `checkpoint`, its manifest last, all of it on the disk.
    fn write(&self, checkpoint: &Checkpoint, temporary: &Path) -> Result<(), CheckpointError> {
        let at = |path: &Path, source| CheckpointError::File {
            path: path.to_path_buf(),
            source,
        };
        fs::create_dir_all(temporary).map_err(|e| at(temporary, e))?;
        let mut files = BTreeMap::new();
        for (group, tensors) in &checkpoint.tensors {
            let name = format!("{group}.safetensors");
            let path = temporary.join(&name);
            let bytes = serialize(tensors).map_err(|e| at(&path, e))?;
            write_synced(&path, &bytes).map_err(|e| at(&path, e))?;
            files.insert(
                name,
                FileEntry {
                    size: bytes.len() as u64,
                    sha256: format!("{:x}", Sha256::digest(&bytes)),
                },
            );
        }
        let manifest = Manifest {
            schema: SCHEMA,
            step: checkpoint.step,
            configuration: self.configuration.clone(),
            settings: self.settings.clone(),
            files,
            values: checkpoint.values.clone(),
        };
        let path = temporary.join(MANIFEST);
        let text = serde_json::to_string_pretty(&manifest).map_err(|e| at(&path, e.into()))?;
        write_synced(&path, text.as_bytes()).map_err(|e| at(&path, e))?;
        sync_folder(temporary).map_err(|e| at(temporary, e))
    }

    /// The newest checkpoint that verifies, if any; `skipped` receives a sentence for each that does not.
    ///
    /// # Errors
    /// When the newest whole checkpoint belongs to another configuration or to another version of the program.
    pub fn latest(&self, skipped: &mut Vec<String>) -> Result<Option<Checkpoint>, CheckpointError> {
        for (_, path) in self.steps().into_iter().rev() {
            if let Some(found) = schema_of(&path).filter(|found| *found != SCHEMA) {
                return Err(CheckpointError::Schema {
                    path,
                    expected: SCHEMA,
                    found,
                });
            }
            match read(&path) {
                Err(reason) => skipped.push(format!("{} skipped: {reason}", path.display())),
                Ok((manifest, _))
                    if manifest.configuration != self.configuration && !self.accept_changes =>
                {
                    let mut changes = Vec::new();
                    differences(&manifest.settings, &self.settings, "", &mut changes);
                    return Err(CheckpointError::Configuration {
                        path,
                        changes: changes.join("; "),
                    });
                }
                Ok((manifest, tensors)) => {
                    return Ok(Some(Checkpoint {
                        step: manifest.step,
                        tensors,
                        values: manifest.values,
                    }));
                }
            }
        }
        Ok(None)
    }

    fn steps(&self) -> Vec<(usize, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Vec::new();
        };
        let mut steps: Vec<(usize, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name();
                let step = name.to_str()?.strip_prefix("step-")?.parse().ok()?;
                Some((step, entry.path()))
            })
            .collect();
        steps.sort();
        steps
    }
}

/// The schema that a manifest names, where there is a manifest that can be read at all.
fn schema_of(folder: &Path) -> Option<u32> {
    let text = fs::read_to_string(folder.join(MANIFEST)).ok()?;
    let manifest: serde_json::Value = serde_json::from_str(&text).ok()?;
    manifest.get("schema")?.as_u64()?.try_into().ok()
}

/// A sentence for each value that is another `now` than it was `then`.
fn differences(
    then: &serde_json::Value,
    now: &serde_json::Value,
    path: &str,
    found: &mut Vec<String>,
) {
    use serde_json::Value;
    let below = |key: &dyn std::fmt::Display| match path {
        "" => key.to_string(),
        path => format!("{path}.{key}"),
    };
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            let keys = then
                .keys()
                .chain(now.keys().filter(|key| !then.contains_key(*key)));
            for key in keys {
                let side = |map: &serde_json::Map<_, _>| map.get(key).cloned().unwrap_or_default();
                differences(&side(then), &side(now), &below(key), found);
            }
        }
        (Value::Array(then), Value::Array(now)) if then.len() == now.len() => {
            for (place, (then, now)) in then.iter().zip(now).enumerate() {
                differences(then, now, &below(&place), found);
            }
        }
        (then, now) if then != now => found.push(format!("{path} was {then}, is {now}")),
        _ => {}
    }
}

fn read(folder: &Path) -> Result<(Manifest, BTreeMap<String, NamedTensors>), String> {
    let text = fs::read_to_string(folder.join(MANIFEST)).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let mut groups = BTreeMap::new();
    for (name, entry) in &manifest.files {
        let mut bytes = Vec::new();
        File::open(folder.join(name))
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|e| format!("{name}: {e}"))?;
        if bytes.len() as u64 != entry.size
            || format!("{:x}", Sha256::digest(&bytes)) != entry.sha256
        {
            return Err(format!(
                "{name} is not the file that the manifest describes"
            ));
        }
        let tensors = deserialize(&bytes).map_err(|e| format!("{name}: {e}"))?;
        groups.insert(name.trim_end_matches(".safetensors").to_string(), tensors);
    }
    Ok((manifest, groups))
}

/// Writes one group of tensors as a file of its own: aside, then renamed.
///
/// # Errors
/// When the file cannot be written; what stood there before stays whole.
pub fn write_group(path: &Path, tensors: &NamedTensors) -> std::io::Result<()> {
    let aside = path.with_extension("safetensors.tmp");
    let written = serialize(tensors)
        .and_then(|bytes| write_synced(&aside, &bytes))
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

/// Reads what [`write_group`] wrote.
///
/// # Errors
/// When the file cannot be read or is no such file.
pub fn read_group(path: &Path) -> std::io::Result<NamedTensors> {
    deserialize(&fs::read(path)?).map_err(std::io::Error::other)
}

fn serialize(tensors: &NamedTensors) -> std::io::Result<Vec<u8>> {
    let converted: Vec<(&String, TensorData)> = tensors
        .iter()
        .map(|(name, data)| (name, data.clone().convert_dtype(DType::F32)))
        .collect();
    let views = converted
        .iter()
        .map(|(name, data)| {
            let view = TensorView::new(Dtype::F32, data.shape.to_vec(), data.as_bytes());
            view.map(|view| (name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(std::io::Error::other)?;
    safetensors::serialize(views, None).map_err(std::io::Error::other)
}

fn deserialize(bytes: &[u8]) -> Result<NamedTensors, safetensors::SafeTensorError> {
    let file = SafeTensors::deserialize(bytes)?;
    Ok(file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let values: Vec<f32> = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            (name, TensorData::new(values, view.shape().to_vec()))
        })
        .collect())
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(step: usize) -> Checkpoint {
        let tensors = [(
            "w".to_string(),
            TensorData::new(vec![step as f32, 0.5], [2]),
        )];
        Checkpoint {
            step,
            tensors: [("parameters".to_string(), tensors.into_iter().collect())].into(),
            values: serde_json::json!({"best": 0.25}),
        }
    }

    #[test]
    fn the_newest_whole_checkpoint_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(folder.path(), &"a", 3);
        for step in [1, 2, 3, 4] {
            store.save(&checkpoint(step)).unwrap();
        }
        assert!(
            !folder.path().join("step-1").exists(),
            "only three are kept"
        );
        let file = folder.path().join("step-4/parameters.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        fs::create_dir(folder.path().join("step-9.tmp")).unwrap();
        let mut skipped = Vec::new();
        let found = store.latest(&mut skipped).unwrap().unwrap();
        assert_eq!(found, checkpoint(3));
        assert_eq!(skipped.len(), 1, "{skipped:?}");
        assert!(skipped[0].contains("step-4"), "{skipped:?}");
    }

    #[test]
    fn another_configuration_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        CheckpointStore::new(folder.path(), &"a", 2)
            .save(&checkpoint(1))
            .unwrap();
        let other = CheckpointStore::new(folder.path(), &"b", 2);
        let error = other.latest(&mut Vec::new()).unwrap_err();
        assert!(
            error.to_string().contains("another configuration"),
            "{error}"
        );
        let accepted = other.accepting_changes(true).latest(&mut Vec::new());
        assert_eq!(accepted.unwrap().unwrap().step, 1);
    }

    #[test]
    fn a_refusal_says_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let then = serde_json::json!({"training": {"seed": 0, "steps": 5}, "pool": "mean"});
        let now = serde_json::json!({"training": {"seed": 1, "steps": 5}, "pool": "eos"});
        CheckpointStore::new(folder.path(), &then, 2)
            .save(&checkpoint(1))
            .unwrap();
        let error = CheckpointStore::new(folder.path(), &now, 2)
            .latest(&mut Vec::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains("training.seed was 0, is 1"), "{error}");
        assert!(error.contains("pool was \"mean\", is \"eos\""), "{error}");
        assert!(!error.contains("steps"), "{error}");
    }

    #[test]
    fn another_versions_checkpoint_is_not_silently_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(folder.path(), &"a", 2);
        store.save(&checkpoint(1)).unwrap();
        let manifest = folder.path().join("step-1").join(MANIFEST);
        let text = fs::read_to_string(&manifest).unwrap();
        let old = text.replace(&format!("\"schema\": {SCHEMA}"), "\"schema\": 999");
        assert_ne!(old, text);
        fs::write(&manifest, old).unwrap();
        let error = store.latest(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("schema 999"), "{error}");
    }
}
