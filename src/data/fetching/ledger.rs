//! What did not come, and why: `pictures-failed.jsonl`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::loading::LoadError;

/// The ledger's name in the folder.
pub const LEDGER_FILE: &str = "pictures-failed.jsonl";

/// One picture that did not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub item: String,
    pub image: String,
    pub url: String,
    pub reason: String,
    /// Whether another run should try it again without being asked.
    pub may_pass: bool,
}

/// Failures by picture.
#[derive(Debug, Default)]
pub struct Ledger {
    pub entries: BTreeMap<String, Entry>,
}

impl Ledger {
    /// Reads the ledger of `root`; none, or a line that cannot be read, is nothing to wait for.
    pub fn open(root: &Path) -> Self {
        let text = std::fs::read_to_string(root.join(LEDGER_FILE)).unwrap_or_default();
        let entries = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Entry>(line).ok())
            .map(|entry| (entry.image.clone(), entry));
        Self {
            entries: entries.collect(),
        }
    }

    /// Writes it aside and renames; an empty one is removed.
    ///
    /// # Errors
    /// A full disk.
    pub fn save(&self, root: &Path) -> Result<(), LoadError> {
        let path = root.join(LEDGER_FILE);
        if self.entries.is_empty() {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(LoadError::file(&path, error))
                }
                _ => Ok(()),
            };
        }
        let mut file = tempfile::NamedTempFile::new_in(root).map_err(LoadError::io(root))?;
        for entry in self.entries.values() {
            let mut line =
                serde_json::to_vec(entry).map_err(|error| LoadError::file(&path, error))?;
            line.push(b'\n');
            file.write_all(&line).map_err(LoadError::io(&path))?;
        }
        file.as_file().sync_all().map_err(LoadError::io(&path))?;
        let file = file
            .persist(&path)
            .map_err(|error| LoadError::file(&path, error.error))?;
        readable_by_all(&file).map_err(LoadError::io(&path))
    }
}

/// Temporary files are private to their owner; results are not.
#[cfg(unix)]
fn readable_by_all(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_all(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}
