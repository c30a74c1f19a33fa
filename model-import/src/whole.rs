//! Files written whole or not at all: to a temporary beside them, forced to disk, then renamed into place.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes `bytes` to `path`, whose folder is made if need be. Whoever may read a file that a plain program writes there may
/// read this one.
///
/// # Errors
/// What the disk says; the old content is still there then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder)?;
    let temporary = Temporary::beside(path);
    let mut file = File::create(temporary.path())?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    temporary.rename(path)
}

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A half-written file, removed unless it was renamed.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn beside(path: &Path) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self(path.with_file_name(format!(
            ".{name}.{}-{}.partial",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        )))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts it in `path`'s place.
    pub(crate) fn rename(self, path: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.0, path)?;
        // The rename itself must survive a crash too; not every file system lets a folder be synced.
        if let Ok(folder) = File::open(folder_of(path)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::write_whole;

    #[test]
    fn a_file_is_replaced_whole_and_read_by_whom_others_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/config.json");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let permissions = |path| std::fs::metadata(path).unwrap().permissions();
        assert_eq!(permissions(&path), permissions(&plain));
        // A folder stands in the way: nothing is left behind.
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        assert!(write_whole(&taken, b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
