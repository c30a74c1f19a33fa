//! JSON lines as a table: the keys of the first objects are its columns.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde_json::{Map, Value};

use crate::data::loading::error::{LoadError, Place};
use crate::data::loading::rows::Rows;
use crate::data::loading::text_file::{Encoding, Lines, MAX_FIELD_BYTES};

/// Objects whose keys are looked at for the columns.
const LOOKED_AT: usize = 1_000;

/// A file with one JSON object a line.
pub struct JsonLines {
    path: PathBuf,
    lines: Lines,
    columns: Vec<String>,
}

impl JsonLines {
    /// # Errors
    /// A file that is missing, empty, no text, or without an object at its start.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let mut columns: Vec<String> = Vec::new();
        let mut start = Lines::open(path, Encoding::Utf8)?;
        let mut complaint = "the file holds no objects".to_string();
        for _ in 0..LOOKED_AT {
            match start.read() {
                Ok(None) => break,
                Ok(Some((row, line))) => match serde_json::from_str::<Map<String, Value>>(line) {
                    Ok(object) => {
                        for key in object.keys() {
                            if !columns.contains(key) {
                                columns.push(key.clone());
                            }
                        }
                    }
                    // Said again, and counted, when the rows are read.
                    Err(_) if !columns.is_empty() => {}
                    Err(error) => complaint = format!("row {row}: no JSON object: {error}"),
                },
                Err(LoadError::Row { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if columns.is_empty() {
            return Err(LoadError::file(path, complaint));
        }
        Ok(Self {
            path: path.to_path_buf(),
            lines: Lines::open(path, Encoding::Utf8)?,
            columns,
        })
    }
}

impl Rows for JsonLines {
    fn path(&self) -> &Path {
        &self.path
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn read(&mut self, row: &mut StringRecord) -> Result<Option<usize>, LoadError> {
        let Some((number, line)) = self.lines.read()? else {
            return Ok(None);
        };
        let place = Place {
            path: &self.path,
            row: number,
        };
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|error| {
            // serde_json counts lines of the text, which is one line.
            let reason = error.to_string().replace("at line 1 column", "at column");
            place.fault(None, format!("no JSON object: {reason}"))
        })?;
        row.clear();
        for column in &self.columns {
            let text = object.get(column).map(text_of).unwrap_or_default();
            if text.len() > MAX_FIELD_BYTES {
                let reason = format!(
                    "the value holds {} bytes, at most {MAX_FIELD_BYTES} are allowed",
                    text.len()
                );
                return Err(place.fault(Some(column), reason));
            }
            row.push_field(&text);
        }
        Ok(Some(number))
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let words = values.iter().map(text_of).filter(|words| !words.is_empty());
            words.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
