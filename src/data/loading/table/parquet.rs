//! Parquet as a table, by rows; nested columns become text.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;

use crate::data::loading::error::{LoadError, Place};
use crate::data::loading::rows::Rows;
use crate::data::loading::text_file::MAX_FIELD_BYTES;

/// A Parquet file; rows are counted from 1.
pub struct ParquetRows {
    path: PathBuf,
    rows: RowIter<'static>,
    columns: Vec<String>,
    num_read: usize,
}

impl ParquetRows {
    /// # Errors
    /// A file that is missing or no Parquet file that can be read here.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let broken = |error: ParquetError| {
            LoadError::file(path, format!("no readable Parquet file: {error}"))
        };
        let file = File::open(path).map_err(LoadError::io(path))?;
        let num_bytes = file.metadata().map_err(LoadError::io(path))?.len();
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(broken)?;
        require_places(reader.metadata(), num_bytes).map_err(broken)?;
        let schema = reader.metadata().file_metadata().schema();
        let columns = schema
            .get_fields()
            .iter()
            .map(|field| field.name().to_string())
            .collect();
        let rows = RowIter::from_file_into(Box::new(reader));
        Ok(Self {
            path: path.to_path_buf(),
            rows,
            columns,
            num_read: 0,
        })
    }
}

impl Rows for ParquetRows {
    fn path(&self) -> &Path {
        &self.path
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn read(&mut self, row: &mut StringRecord) -> Result<Option<usize>, LoadError> {
        self.num_read += 1;
        // A page that is broken stays so: no row after it can be read.
        let next = guarded(|| self.rows.next().transpose()).map_err(|error| {
            LoadError::file(&self.path, format!("row {}: {error}", self.num_read))
        })?;
        let Some(next) = next else {
            return Ok(None);
        };
        row.clear();
        for (column, field) in next.get_column_iter() {
            let text = text_of(field);
            if text.len() > MAX_FIELD_BYTES {
                let place = Place {
                    path: &self.path,
                    row: self.num_read,
                };
                let reason = format!(
                    "the value holds {} bytes, at most {MAX_FIELD_BYTES} are allowed",
                    text.len()
                );
                return Err(place.fault(Some(column), reason));
            }
            row.push_field(&text);
        }
        Ok(Some(self.num_read))
    }
}

/// Every column's bytes lie inside the file; the crate takes that for granted, and panics where it is not so.
fn require_places(metadata: &ParquetMetaData, num_bytes: u64) -> Result<(), ParquetError> {
    for group in metadata.row_groups() {
        for column in group.columns() {
            let start = column
                .dictionary_page_offset()
                .unwrap_or(column.data_page_offset());
            let inside = u64::try_from(start)
                .ok()
                .zip(u64::try_from(column.compressed_size()).ok())
                .and_then(|(start, length)| start.checked_add(length))
                .is_some_and(|end| end <= num_bytes);
            if !inside || column.num_values() < 0 {
                let reason = format!("the column {} lies outside the file", column.column_path());
                return Err(ParquetError::General(reason));
            }
        }
    }
    Ok(())
}

/// What else it takes for granted in a broken file becomes an error too.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General("the file is broken".into())))
}

fn text_of(field: &Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        // Older writers do not mark text as such.
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned(),
        Field::Date(days) => (i64::from(*days) * 86_400).to_string(),
        Field::TimestampMillis(time) => time.div_euclid(1_000).to_string(),
        Field::TimestampMicros(time) => time.div_euclid(1_000_000).to_string(),
        Field::ListInternal(list) => {
            let words = list
                .elements()
                .iter()
                .map(text_of)
                .filter(|words| !words.is_empty());
            words.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
