//! Opening text that others wrote: marks, encodings, line ends, and rows that never end.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::error::{LoadError, Place};
use crate::data::table::BYTE_ORDER_MARK;

/// Longest row of a text file, in bytes. A quote that is never closed swallows the rest of a file, and this ends it.
pub const MAX_ROW_BYTES: u64 = 16 << 20;
/// Longest single field, in bytes: far above any title, far below what would hurt.
pub const MAX_FIELD_BYTES: usize = 1 << 20;

/// How bytes stand for letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO-8859-1: a byte is a code point.
    #[serde(rename = "latin-1")]
    Latin1,
}

impl Encoding {
    /// The text of `bytes`, appended to `text`; or why it is none.
    pub fn decode(self, bytes: &[u8], text: &mut String) -> Result<(), &'static str> {
        match self {
            Encoding::Utf8 => {
                let valid = std::str::from_utf8(bytes).map_err(|_| {
                    "not UTF-8 text; say --encoding latin-1 if that is what it is, or save the file as UTF-8"
                })?;
                text.push_str(valid);
            }
            Encoding::Latin1 => text.extend(bytes.iter().map(|&byte| char::from(byte))),
        }
        Ok(())
    }
}

/// Opens `path` behind its byte-order mark; what is plainly no such text is refused by name.
pub fn open(path: &Path) -> Result<BufReader<File>, LoadError> {
    let metadata = std::fs::metadata(path).map_err(LoadError::io(path))?;
    if metadata.is_dir() {
        return Err(LoadError::file(path, "a folder, expected a file"));
    }
    let file = File::open(path).map_err(LoadError::io(path))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let start = reader.fill_buf().map_err(LoadError::io(path))?;
    let refused = match start {
        [] => Some("the file is empty"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16 text; save the file as UTF-8"),
        [0x1f, 0x8b, ..] => Some("a gzip archive; unpack it first (gunzip)"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive; unpack it first (unzip)"),
        [b'P', b'A', b'R', b'1', ..] => Some("a Parquet file; name it .parquet"),
        _ => None,
    };
    if let Some(reason) = refused {
        return Err(LoadError::file(path, reason));
    }
    if start.starts_with(BYTE_ORDER_MARK) {
        reader.consume(BYTE_ORDER_MARK.len());
    }
    Ok(reader)
}

/// Lines of a text file; `\n` and `\r\n` may be mixed, blank lines are passed over.
pub struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    encoding: Encoding,
    bytes: Vec<u8>,
    text: String,
    row: usize,
}

impl Lines {
    /// # Errors
    /// A file that is missing, empty or no text.
    pub fn open(path: &Path, encoding: Encoding) -> Result<Self, LoadError> {
        Ok(Self {
            reader: open(path)?,
            path: path.to_path_buf(),
            encoding,
            bytes: Vec::new(),
            text: String::new(),
            row: 0,
        })
    }

    /// The next line with its number.
    ///
    /// # Errors
    /// A line that is no text, after which reading may go on; one that is too long, after which it may not.
    pub fn read(&mut self) -> Result<Option<(usize, &str)>, LoadError> {
        loop {
            self.bytes.clear();
            let mut limited = self.reader.by_ref().take(MAX_ROW_BYTES + 1);
            let num_read = limited
                .read_until(b'\n', &mut self.bytes)
                .map_err(LoadError::io(&self.path))?;
            if num_read == 0 {
                return Ok(None);
            }
            self.row += 1;
            if num_read as u64 > MAX_ROW_BYTES {
                return Err(too_long(&self.path, self.row));
            }
            while matches!(self.bytes.last(), Some(b'\n' | b'\r')) {
                self.bytes.pop();
            }
            if self.bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.text.clear();
            let place = Place {
                path: &self.path,
                row: self.row,
            };
            return match self.encoding.decode(&self.bytes, &mut self.text) {
                Ok(()) => Ok(Some((self.row, &self.text))),
                Err(reason) => Err(place.fault(None, reason)),
            };
        }
    }
}

/// A row that goes on past the limit; no row after it can be trusted.
pub fn too_long(path: &Path, row: usize) -> LoadError {
    let reason = format!(
        "row {row} is longer than {} MiB; is a double quote not closed, or is this no text?",
        MAX_ROW_BYTES >> 20
    );
    LoadError::file(path, reason)
}

/// A reader that gives out no more than it is allowed to; whoever reads rows moves the allowance on.
pub struct Allowance<R> {
    inner: R,
    given: u64,
    allowed: Rc<Cell<u64>>,
}

impl<R> Allowance<R> {
    pub fn new(inner: R, allowed: Rc<Cell<u64>>) -> Self {
        Self {
            inner,
            given: 0,
            allowed,
        }
    }
}

impl<R: Read> Read for Allowance<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.given >= self.allowed.get() {
            return Err(std::io::Error::other("the row is too long"));
        }
        let count = self.inner.read(buffer)?;
        self.given += count as u64;
        Ok(count)
    }
}
