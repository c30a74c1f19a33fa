//! What stops a loader, and what of it `--skip-bad` leaves out.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A source that cannot be turned into a data folder.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file that is missing, of another kind, or unreadable as a whole.
    #[error("{path}: {reason}", path = path.display())]
    File { path: PathBuf, reason: String },
    /// One row; `--skip-bad` leaves it out.
    #[error(
        "{path}, row {row}{column}: {reason}",
        path = path.display(),
        column = column.as_ref().map(|name| format!(", {name}")).unwrap_or_default()
    )]
    Row {
        path: PathBuf,
        row: usize,
        column: Option<String>,
        reason: String,
    },
    #[error(
        "{path}: no column for the {role}; the columns found are {found}; name it with {option}",
        path = path.display()
    )]
    Column {
        path: PathBuf,
        role: &'static str,
        found: String,
        option: &'static str,
    },
    #[error("{option}: {found}; expected {expected}")]
    Option {
        option: &'static str,
        found: String,
        expected: String,
    },
    #[error(
        "{path}: the folder is not empty and no earlier output of `ragar data {loader}`; name a new folder, or remove this one",
        path = path.display()
    )]
    Foreign { path: PathBuf, loader: String },
    #[error(
        "{inner} lies in {output}, which would be replaced; move it out first",
        inner = inner.display(),
        output = output.display()
    )]
    SourceInOutput { inner: PathBuf, output: PathBuf },
    #[error("nothing is left: {reason}")]
    Nothing { reason: String },
}

impl LoadError {
    /// The file as a whole.
    pub fn file(path: &Path, reason: impl ToString) -> Self {
        Self::File {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// What the system says of a file.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |error| match error.kind() {
            std::io::ErrorKind::NotFound => Self::file(path, "no such file"),
            _ => Self::file(path, error),
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub path: &'a Path,
    /// The line where the row starts; the first line of the file is 1.
    pub row: usize,
}

impl Place<'_> {
    /// A fault of this row, in `column` where one is to blame.
    pub fn fault(self, column: Option<&str>, reason: impl ToString) -> LoadError {
        LoadError::Row {
            path: self.path.to_path_buf(),
            row: self.row,
            column: column.map(str::to_string),
            reason: reason.to_string(),
        }
    }
}

/// How many faults are remembered word for word.
const REMEMBERED: usize = 20;

/// Stops at the first bad row, or counts them.
#[derive(Debug, Default)]
pub struct Faults {
    skip: bool,
    pub count: usize,
    pub first: Vec<String>,
}

impl Faults {
    pub fn new(skip: bool) -> Self {
        Self {
            skip,
            ..Self::default()
        }
    }

    /// Counts the fault of a row where bad rows are skipped.
    ///
    /// # Errors
    /// The fault itself otherwise, and always what concerns more than a row.
    pub fn meet(&mut self, error: LoadError) -> Result<(), LoadError> {
        if !self.skip || !matches!(error, LoadError::Row { .. }) {
            return Err(error);
        }
        self.count += 1;
        if self.first.len() < REMEMBERED {
            self.first.push(error.to_string());
        }
        Ok(())
    }
}
