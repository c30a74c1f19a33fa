//! The content-addressed feature store: what was computed, under the digest of what it was computed from.
//!
//! A key covers the picture's bytes or the text, the checkpoint and the preprocessing, so a changed picture or
//! network never finds an old answer, and an interrupted run finds everything it had finished. Entries carry a
//! checksum; a damaged one counts as absent.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::optimisation::Progress;

/// The store cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: the feature store cannot be written: {source}; what was computed before is kept", path.display())]
pub struct StoreError {
    path: PathBuf,
    source: std::io::Error,
}

/// The digest of everything that an entry depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The key of a `kind` of feature of `parts`; no two lists of parts share one by running together.
    pub fn new(kind: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(kind.as_bytes()).chain(parts.iter().copied()) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(format!("{:x}", hash.finalize()))
    }
}

/// Something that can be kept.
pub trait Entry: Clone {
    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// From its bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Entry for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

impl Entry for Vec<f32> {
    fn to_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (values, rest) = bytes.as_chunks::<4>();
        rest.is_empty().then(|| {
            values
                .iter()
                .map(|value| f32::from_le_bytes(*value))
                .collect()
        })
    }
}

/// Bytes of the checksum in front of an entry.
const CHECKSUM: usize = 32;

/// A folder of entries.
#[derive(Debug, Clone)]
pub struct FeatureStore {
    root: PathBuf,
}

impl FeatureStore {
    /// The store at `root`, made when the first entry is kept.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(&key.0[..2]).join(&key.0[2..])
    }

    /// What is kept under `key`; nothing when absent or damaged.
    pub fn get<T: Entry>(&self, key: &Key) -> Option<T> {
        let bytes = fs::read(self.path(key)).ok()?;
        let (checksum, content) = bytes.split_at_checked(CHECKSUM)?;
        (Sha256::digest(content).as_slice() == checksum)
            .then(|| T::from_bytes(content))
            .flatten()
    }

    /// Keeps `entry` under `key`; it is there whole or not at all.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put<T: Entry>(&self, key: &Key, entry: &T) -> Result<(), StoreError> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root);
        let content = entry.to_bytes();
        let written = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&Sha256::digest(&content))?;
            file.write_all(&content)?;
            file.persist(&path)?;
            Ok(())
        };
        // Not synced one by one: an entry lost to a power cut fails its checksum and is computed again.
        written().map_err(|source| StoreError { path, source })
    }

    /// The entries of all `keys`: kept ones from the store, the others by `compute`, which receives places of `keys`
    /// and is called for at most `batch_size` at once. Equal keys are computed once, and every batch is kept before
    /// the next begins.
    ///
    /// # Errors
    /// Those of `compute` and of the disk.
    pub fn complete<T: Entry, E: From<StoreError>>(
        &self,
        name: &str,
        keys: &[Key],
        batch_size: usize,
        progress: &dyn Progress,
        mut compute: impl FnMut(&[usize]) -> Result<Vec<T>, E>,
    ) -> Result<Vec<T>, E> {
        let mut known: HashMap<&Key, T> = HashMap::new();
        let mut missing: Vec<usize> = Vec::new();
        let mut asked = std::collections::HashSet::new();
        for (place, key) in keys.iter().enumerate() {
            if !asked.insert(key) {
                continue;
            }
            match self.get(key) {
                Some(entry) => {
                    known.insert(key, entry);
                }
                None => missing.push(place),
            }
        }
        if !missing.is_empty() {
            progress.begin(name, missing.len());
            let mut done = 0;
            for batch in missing.chunks(batch_size.max(1)) {
                let entries = compute(batch)?;
                assert_eq!(entries.len(), batch.len(), "an entry per key");
                for (place, entry) in batch.iter().zip(entries) {
                    self.put(&keys[*place], &entry)?;
                    known.insert(&keys[*place], entry);
                }
                done += batch.len();
                progress.advance(done, "");
            }
            progress.end();
        }
        Ok(keys.iter().map(|key| known[key].clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimisation::Silent;

    #[test]
    fn keys_do_not_run_together() {
        assert_ne!(Key::new("a", &[b"bc"]), Key::new("ab", &[b"c"]));
        assert_ne!(Key::new("a", &[b"b", b"c"]), Key::new("a", &[b"bc"]));
        assert_eq!(Key::new("a", &[b"b"]), Key::new("a", &[b"b"]));
    }

    #[test]
    fn a_damaged_entry_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let store = FeatureStore::new(folder.path());
        let key = Key::new("vector", &[b"x"]);
        assert_eq!(store.get::<Vec<f32>>(&key), None);
        store.put(&key, &vec![1.5f32, -2.0]).unwrap();
        assert_eq!(store.get::<Vec<f32>>(&key), Some(vec![1.5, -2.0]));
        let path = store.path(&key);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.get::<Vec<f32>>(&key), None);
        fs::write(&path, &bytes[..10]).unwrap();
        assert_eq!(store.get::<Vec<f32>>(&key), None);
    }

    #[test]
    fn a_stopped_run_goes_on_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let store = FeatureStore::new(folder.path());
        let keys: Vec<Key> = ["a", "b", "a", "c"]
            .iter()
            .map(|text| Key::new("text", &[text.as_bytes()]))
            .collect();
        let mut calls = Vec::new();
        let stopped: Result<Vec<String>, StoreError> =
            store.complete("texts", &keys, 1, &Silent, |places| {
                calls.push(places.to_vec());
                if places == [3] {
                    return Err(StoreError {
                        path: "x".into(),
                        source: std::io::ErrorKind::StorageFull.into(),
                    });
                }
                Ok(vec![format!("entry {}", places[0])])
            });
        assert!(stopped.is_err());
        let mut asked = Vec::new();
        let whole: Vec<String> = store
            .complete("texts", &keys, 8, &Silent, |places| {
                asked.extend_from_slice(places);
                Ok::<_, StoreError>(
                    places
                        .iter()
                        .map(|place| format!("entry {place}"))
                        .collect(),
                )
            })
            .unwrap();
        assert_eq!(asked, [3], "the others were kept");
        assert_eq!(whole, ["entry 0", "entry 1", "entry 0", "entry 3"]);
    }
}
