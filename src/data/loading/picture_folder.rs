//! Pictures that a user already has: found by the file's name without its ending.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::error::LoadError;
use super::picture_names::is_picture;

/// Folders within folders that are still looked into.
const DEEPEST: usize = 8;

/// The pictures beneath a folder.
#[derive(Debug)]
pub struct PictureFolder {
    root: PathBuf,
    /// Name without ending, in lower case; of several, the first by path.
    by_name: HashMap<String, PathBuf>,
}

impl PictureFolder {
    /// Lists the pictures beneath `root`; links are not followed.
    ///
    /// # Errors
    /// A folder that is missing or cannot be listed.
    pub fn open(root: &Path) -> Result<Self, LoadError> {
        let mut files = Vec::new();
        list(root, 0, &mut files)?;
        files.sort();
        let mut by_name = HashMap::with_capacity(files.len());
        for file in files {
            if let Some(name) = file.file_stem().and_then(|name| name.to_str()) {
                by_name.entry(name.to_lowercase()).or_insert(file);
            }
        }
        Ok(Self {
            root: root.to_path_buf(),
            by_name,
        })
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The picture called `name`, whatever its ending.
    pub fn named(&self, name: &str) -> Option<&Path> {
        self.by_name.get(&name.to_lowercase()).map(PathBuf::as_path)
    }

    /// The names there are, in lower case.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The file at a path that a table gives, None where there is none.
    ///
    /// # Errors
    /// Why the path is refused: a data set must not point at files elsewhere.
    pub fn at(&self, path: &str) -> Result<Option<PathBuf>, String> {
        inside(&self.root, path)
    }
}

fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let entries = std::fs::read_dir(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => LoadError::file(folder, "no such folder"),
        _ => LoadError::file(folder, error),
    })?;
    for entry in entries {
        let entry = entry.map_err(LoadError::io(folder))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(LoadError::io(&path))?;
        if kind.is_dir() && depth < DEEPEST {
            list(&path, depth + 1, files)?;
        } else if kind.is_file() && is_picture(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// The file at `path` beneath `root`, None where there is none.
///
/// # Errors
/// A path that leads out of `root`, by itself or by a link.
pub fn inside(root: &Path, path: &str) -> Result<Option<PathBuf>, String> {
    let relative = Path::new(path);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.contains('\0') || !relative.components().all(plain) {
        return Err(format!(
            "{path:?} leads out of {}; pictures must lie inside it",
            root.display()
        ));
    }
    let file = root.join(relative);
    let (Ok(real), Ok(real_root)) = (file.canonicalize(), root.canonicalize()) else {
        return Ok(None);
    };
    if !real.starts_with(&real_root) {
        return Err(format!("{path:?} is a link out of {}", root.display()));
    }
    Ok(real.is_file().then_some(file))
}
