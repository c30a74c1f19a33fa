//! Writing results so that a reader never sees half a file.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use model_import::write_whole;

/// Writes `bytes` to a temporary file beside `path`, forces it to disk and renames it into place.
///
/// # Errors
/// Names the file; the old content is still there after a failure such as a full disk.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_whole(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Fills a folder beside `path` and puts it in place of whatever was there: a reader sees the old one or the whole new one.
///
/// # Errors
/// What `fill` says, or the file system, with the folder's name; the old folder is still there then.
pub fn write_folder(
    path: &Path,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let beside = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let place = || format!("cannot write {}", path.display());
    fs::create_dir_all(beside).with_context(place)?;
    let aside = tempfile::Builder::new()
        .prefix(".writing-")
        .tempdir_in(beside)
        .with_context(place)?;
    let (new, old) = (aside.path().join("new"), aside.path().join("old"));
    fs::create_dir(&new).with_context(place)?;
    fill(&new)?;
    if path.exists() {
        fs::rename(path, &old).with_context(place)?;
    }
    if let Err(error) = fs::rename(&new, path) {
        // Nothing is lost: what stood there goes back.
        let _ = fs::rename(&old, path);
        return Err(error).with_context(place);
    }
    Ok(())
}

/// Writes `value` as indented JSON.
///
/// # Errors
/// As [`write`].
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .with_context(|| format!("cannot write {} as JSON", path.display()))?;
    bytes.push(b'\n');
    write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_replaced_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("adapter");
        let filled = |name: &'static str| {
            move |folder: &Path| Ok(fs::write(folder.join(name), name)?) as anyhow::Result<()>
        };
        write_folder(&path, filled("a")).unwrap();
        write_folder(&path, filled("b")).unwrap();
        assert!(path.join("b").is_file() && !path.join("a").exists());
        let failed = write_folder(&path, |folder| {
            fs::write(folder.join("c"), "")?;
            anyhow::bail!("disk full")
        });
        assert!(failed.is_err());
        assert!(path.join("b").is_file() && !path.join("c").exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
