//! Rows under named columns, whatever file they come from.

use std::cell::Cell;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use csv::{ByteRecord, StringRecord};

use super::error::{LoadError, Place};
use super::text_file::{Allowance, Encoding, MAX_FIELD_BYTES, MAX_ROW_BYTES, open, too_long};

/// A table read row by row; a row has a field for every column.
pub trait Rows {
    fn path(&self) -> &Path;

    /// Names of the columns, trimmed.
    fn columns(&self) -> &[String];

    /// The next row into `row`, and its number; None at the end.
    ///
    /// # Errors
    /// [`LoadError::Row`] for a row that cannot be taken apart, after which reading may go on; others end it.
    fn read(&mut self, row: &mut StringRecord) -> Result<Option<usize>, LoadError>;
}

/// How a text table is written.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    pub delimiter: u8,
    /// Whether a field may stand in double quotes.
    pub quoting: bool,
    pub encoding: Encoding,
}

impl Dialect {
    pub fn comma(encoding: Encoding) -> Self {
        Self {
            delimiter: b',',
            quoting: true,
            encoding,
        }
    }
}

/// A comma- or tab-separated file whose first line names the columns.
pub struct Delimited {
    path: PathBuf,
    reader: csv::Reader<Allowance<BufReader<File>>>,
    allowed: Rc<Cell<u64>>,
    dialect: Dialect,
    columns: Vec<String>,
    bytes: ByteRecord,
    num_rows: usize,
}

impl Delimited {
    /// # Errors
    /// A file that is missing, empty, no text, or whose first line cannot be read.
    pub fn open(path: &Path, dialect: Dialect) -> Result<Self, LoadError> {
        let allowed = Rc::new(Cell::new(MAX_ROW_BYTES));
        let source = Allowance::new(open(path)?, allowed.clone());
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(dialect.delimiter)
            .quoting(dialect.quoting)
            .flexible(true)
            .from_reader(source);
        let header = match reader.byte_headers() {
            Ok(header) => header.clone(),
            Err(error) => return Err(broken(path, 1, &error)),
        };
        let mut columns = Vec::with_capacity(header.len());
        for field in &header {
            let mut name = String::new();
            if let Err(reason) = dialect.encoding.decode(field, &mut name) {
                return Err(LoadError::file(path, format!("row 1: {reason}")));
            }
            columns.push(name.trim().to_string());
        }
        if columns.iter().all(String::is_empty) {
            return Err(LoadError::file(
                path,
                "the file is empty; its first line must name the columns",
            ));
        }
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            allowed,
            dialect,
            columns,
            bytes: ByteRecord::new(),
            num_rows: 0,
        })
    }
}

impl Rows for Delimited {
    fn path(&self) -> &Path {
        &self.path
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn read(&mut self, row: &mut StringRecord) -> Result<Option<usize>, LoadError> {
        let start = self.reader.position().byte();
        self.allowed.set(start + MAX_ROW_BYTES);
        self.num_rows += 1;
        let guess = self.num_rows + 1;
        match self.reader.read_byte_record(&mut self.bytes) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => return Err(broken(&self.path, guess, &error)),
        }
        let number = self
            .bytes
            .position()
            .map_or(guess, |position| position.line() as usize);
        let place = Place {
            path: &self.path,
            row: number,
        };
        if self.bytes.len() != self.columns.len() {
            let reason = format!(
                "{} fields, expected {}{}",
                self.bytes.len(),
                self.columns.len(),
                if self.dialect.quoting {
                    "; a text with a comma must stand in double quotes"
                } else {
                    ""
                }
            );
            return Err(place.fault(None, reason));
        }
        row.clear();
        let mut text = String::new();
        for (field, column) in self.bytes.iter().zip(&self.columns) {
            if field.len() > MAX_FIELD_BYTES {
                let reason = format!(
                    "the field holds {} bytes, at most {MAX_FIELD_BYTES} are allowed; is a double quote not closed?",
                    field.len()
                );
                return Err(place.fault(Some(column), reason));
            }
            text.clear();
            self.dialect
                .encoding
                .decode(field, &mut text)
                .map_err(|reason| place.fault(Some(column), reason))?;
            row.push_field(&text);
        }
        Ok(Some(number))
    }
}

fn broken(path: &Path, row: usize, error: &csv::Error) -> LoadError {
    match error.kind() {
        // The only error that the allowance makes.
        csv::ErrorKind::Io(inner) if inner.kind() == std::io::ErrorKind::Other => {
            too_long(path, row)
        }
        _ => LoadError::file(path, error),
    }
}

/// Finds the columns that a loader needs.
pub struct Columns<'a> {
    path: &'a Path,
    names: &'a [String],
}

impl<'a> Columns<'a> {
    pub fn of(rows: &'a dyn Rows) -> Self {
        Self {
            path: rows.path(),
            names: rows.columns(),
        }
    }

    /// The place of the column called `wanted`, or else of the first of `guesses` that is there. Guesses are compared
    /// by their letters and digits alone.
    ///
    /// # Errors
    /// A column asked for by name that is missing or stands twice.
    pub fn find(
        &self,
        wanted: Option<&str>,
        guesses: &[&str],
        role: &'static str,
        option: &'static str,
    ) -> Result<Option<usize>, LoadError> {
        let Some(wanted) = wanted else {
            let bare = |name: &str| -> String {
                let kept = name.chars().filter(|letter| letter.is_alphanumeric());
                kept.flat_map(char::to_lowercase).collect()
            };
            let names: Vec<String> = self.names.iter().map(|name| bare(name)).collect();
            return Ok(guesses
                .iter()
                .find_map(|guess| names.iter().position(|name| name == guess)));
        };
        if !self.names.iter().any(|name| name == wanted) {
            return Err(self.missing(role, option));
        }
        self.named(wanted).map(Some)
    }

    /// The place of the column that a published layout calls `name`.
    ///
    /// # Errors
    /// One that is missing or stands twice.
    pub fn named(&self, name: &str) -> Result<usize, LoadError> {
        let mut found = (0..self.names.len()).filter(|&place| self.names[place] == name);
        let reason = match (found.next(), found.next()) {
            (Some(place), None) => return Ok(place),
            (Some(_), Some(_)) => format!("the column {name:?} stands twice in the first line"),
            (None, _) => format!(
                "the column {name:?} is missing; the columns found are {}",
                self.names.join(", ")
            ),
        };
        Err(LoadError::file(self.path, reason))
    }

    /// As [`Columns::find`], and there must be one.
    ///
    /// # Errors
    /// [`LoadError::Column`] with the columns that there are.
    pub fn require(
        &self,
        wanted: Option<&str>,
        guesses: &[&str],
        role: &'static str,
        option: &'static str,
    ) -> Result<usize, LoadError> {
        self.find(wanted, guesses, role, option)?
            .ok_or_else(|| self.missing(role, option))
    }

    fn missing(&self, role: &'static str, option: &'static str) -> LoadError {
        LoadError::Column {
            path: self.path.to_path_buf(),
            role,
            found: self.names.join(", "),
            option,
        }
    }
}
