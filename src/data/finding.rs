//! One thing that is wrong with a data folder: which file, row and column, and what.

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The folder can be used; look whether this was meant.
    Warning,
    /// The folder cannot be used as it is.
    Error,
}

/// One thing wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// Relative to the folder.
    pub file: String,
    /// The line where the row starts; the first line of the file is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<usize>,
    /// The column of a table or the key of a JSON line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    #[serde(flatten)]
    pub problem: Problem,
}

/// What can be wrong. The text says what was found, what was expected, and the way out where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    #[error("the file is missing")]
    MissingFile,
    #[error("the file cannot be read: {reason}")]
    UnreadableFile { reason: String },
    #[error("the file is empty; its first line must name the columns {expected}")]
    EmptyFile { expected: String },
    #[error("the file holds no rows")]
    NoRows,
    #[error("the column is missing; the columns found are {found}")]
    MissingColumn { found: String },
    #[error("the column stands twice in the first line")]
    RepeatedColumn,
    #[error("{found} fields, expected {expected}; a text with a comma must stand in double quotes")]
    FieldCount { found: usize, expected: usize },
    #[error("not UTF-8 text; save the file as UTF-8")]
    NotUtf8,
    #[error("the field is empty")]
    EmptyField,
    #[error("the text is empty: nothing will be known of this item but its picture")]
    EmptyText,
    #[error("item {id:?} stands twice, first in row {first_row}")]
    DuplicateId { id: String, first_row: usize },
    #[error("item {id:?} is not in items.csv")]
    UnknownItem { id: String },
    #[error("{found:?} is not a number of seconds")]
    BadTimestamp { found: String },
    #[error("{found:?} is not {expected}")]
    BadValue { found: String, expected: String },
    #[error("not a JSON object of this kind: {reason}")]
    BadJson { reason: String },
    #[error("user {user:?} has an empty history")]
    EmptyHistory { user: String },
    #[error("the reference {id:?} of user {user:?} stands in the history too")]
    ReferenceInHistory { user: String, id: String },
    #[error("the target {id:?} of user {user:?} stands in the history too")]
    TargetInHistory { user: String, id: String },
    #[error(
        "image path {path:?} leaves the folder ({reason}); put the picture inside and name it from there"
    )]
    OutsidePath { path: String, reason: String },
    #[error("image {path:?} is missing")]
    MissingImage { path: String },
    #[error("image {path:?} cannot be used: {reason}")]
    BrokenImage { path: String, reason: String },
    #[error("image {path:?} is too large: {reason}")]
    OversizedImage { path: String, reason: String },
    #[error("item {id:?} has no row in this file")]
    MissingRow { id: String },
}

impl Problem {
    /// Whether a folder with this problem can be used.
    pub fn severity(&self) -> Severity {
        match self {
            Problem::EmptyText
            | Problem::ReferenceInHistory { .. }
            | Problem::TargetInHistory { .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// The problem at a row, and a column if one is to blame.
    pub(super) fn at(self, file: &str, row: usize, column: Option<&str>) -> Finding {
        Finding {
            severity: self.severity(),
            file: file.to_string(),
            row: Some(row),
            column: column.map(str::to_string),
            problem: self,
        }
    }

    /// The problem of a whole file, or of one of its columns.
    pub(super) fn of(self, file: &str, column: Option<&str>) -> Finding {
        Finding {
            severity: self.severity(),
            file: file.to_string(),
            row: None,
            column: column.map(str::to_string),
            problem: self,
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        if let Some(column) = &self.column {
            write!(f, ", {column}")?;
        }
        write!(f, ": {}", self.problem)
    }
}
