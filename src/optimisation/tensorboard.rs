//! TensorBoard's event files: scalars and pictures over the steps of a run.
//!
//! Written here: the crates for it are old or need a compiler of protocol buffers (docs/decisions.md). A file is a row of records, each framed by its length and
//! two masked CRC-32C sums (TensorFlow's record format), and each the protocol buffer `Event` of `event.proto`; the few
//! fields in use are encoded by hand.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The newest form of event files; from 2 on readers obey [`EventWriter::start`].
const FILE_VERSION: &[u8] = b"brain.Event:2";
const PREFIX: &str = "events.out.tfevents.";

/// Event records, one after another.
#[derive(Debug)]
pub struct EventWriter<W: Write> {
    file: W,
}

impl<W: Write> EventWriter<W> {
    /// A new event file; `wall_time` is in seconds since 1970, here and below.
    ///
    /// # Errors
    /// When the first record cannot be written, as all methods here.
    pub fn new(file: W, wall_time: f64) -> io::Result<Self> {
        let mut writer = Self { file };
        writer.event(wall_time, 0, &bytes_field(3, FILE_VERSION))?;
        Ok(writer)
    }

    /// Tells readers that a run begins at `step`: whatever earlier files say of it and of later steps is void.
    pub fn start(&mut self, wall_time: f64, step: usize) -> io::Result<()> {
        const STATUS_START: u64 = 1;
        let session_log = integer_field(1, STATUS_START);
        self.event(wall_time, step, &bytes_field(7, &session_log))
    }

    /// Values under their tags; none is written where there are none.
    pub fn scalars<'a>(
        &mut self,
        wall_time: f64,
        step: usize,
        values: impl IntoIterator<Item = (&'a str, f32)>,
    ) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = bytes_field(1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend(value.to_le_bytes());
            summary.extend(bytes_field(1, &entry));
        }
        match summary.is_empty() {
            true => Ok(()),
            false => self.event(wall_time, step, &bytes_field(5, &summary)),
        }
    }

    /// A picture under its tag, as an encoded PNG file of `width` × `height` colour pixels.
    pub fn image(
        &mut self,
        wall_time: f64,
        step: usize,
        tag: &str,
        png: &[u8],
        width: u32,
        height: u32,
    ) -> io::Result<()> {
        const COLOURS: u64 = 3;
        let picture = [
            integer_field(1, u64::from(height)),
            integer_field(2, u64::from(width)),
            integer_field(3, COLOURS),
            bytes_field(4, png),
        ]
        .concat();
        let entry = [bytes_field(1, tag.as_bytes()), bytes_field(4, &picture)].concat();
        let summary = bytes_field(1, &entry);
        self.event(wall_time, step, &bytes_field(5, &summary))
    }

    fn event(&mut self, wall_time: f64, step: usize, what: &[u8]) -> io::Result<()> {
        let mut event = vec![1 << 3 | 1];
        event.extend(wall_time.to_le_bytes());
        event.extend(integer_field(2, step as u64));
        event.extend(what);
        let length = (event.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked_crc(&length).to_le_bytes())?;
        self.file.write_all(&event)?;
        self.file.write_all(&masked_crc(&event).to_le_bytes())
    }
}

/// The event file of a run that goes on.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    writer: EventWriter<BufWriter<File>>,
}

impl EventLog {
    /// Begins a new event file in `folder`, which is made; readers forget what older files there say of `from_step` and
    /// later, so that a resumed run shows each step once.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub fn open(folder: &Path, from_step: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        // Readers take files by name: a new one must come last, also within the same second or after a clock set back.
        let seconds = (now() as u64).max(newest(folder)?.map_or(0, |newest| newest + 1));
        let path = folder.join(format!(
            "{PREFIX}{seconds:010}.ragar.{}.0",
            std::process::id()
        ));
        let mut writer = EventWriter::new(BufWriter::new(File::create_new(&path)?), now())?;
        if from_step > 0 {
            writer.start(now(), from_step)?;
        }
        let mut log = Self { path, writer };
        log.flush()?;
        Ok(log)
    }

    /// Values of `step` under their tags.
    ///
    /// # Errors
    /// When they cannot be written (a full disk).
    pub fn scalars<'a>(
        &mut self,
        step: usize,
        values: impl IntoIterator<Item = (&'a str, f32)>,
    ) -> io::Result<()> {
        self.writer.scalars(now(), step, values)
    }

    /// A picture of `step` under its tag, as an encoded PNG file of `width` × `height` colour pixels.
    ///
    /// # Errors
    /// When it cannot be written (a full disk).
    pub fn image(
        &mut self,
        step: usize,
        tag: &str,
        png: &[u8],
        width: u32,
        height: u32,
    ) -> io::Result<()> {
        self.writer.image(now(), step, tag, png, width, height)
    }

    /// Makes everything visible to readers.
    ///
    /// # Errors
    /// When it cannot be written (a full disk).
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.file.flush()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// The largest number in the names of event files in `folder`.
fn newest(folder: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| {
            let rest = name.strip_prefix(PREFIX)?;
            rest.split('.').next()?.parse::<u64>().ok()
        });
        newest = newest.max(number);
    }
    Ok(newest)
}

/// A field of bytes: tag, length, content.
fn bytes_field(number: u64, content: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(content.len() + 8);
    varint(&mut field, number << 3 | 2);
    varint(&mut field, content.len() as u64);
    field.extend_from_slice(content);
    field
}

/// A field of a whole number.
fn integer_field(number: u64, value: u64) -> Vec<u8> {
    let mut field = Vec::new();
    varint(&mut field, number << 3);
    varint(&mut field, value);
    field
}

/// Seven bits a byte, the lowest first.
fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// CRC-32C, turned and shifted so that a sum stored within summed data does no harm.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), reflected.
fn crc(bytes: &[u8]) -> u32 {
    let step =
        |sum: u32, byte: &u8| CRC_TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ sum >> 8;
    !bytes.iter().fold(!0, step)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = index as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ 0x82f6_3b78
            } else {
                sum >> 1
            };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_castagnolis() {
        // The check value that catalogues of CRCs give.
        assert_eq!(crc(b"123456789"), 0xe306_9283);
        assert_eq!(crc(b""), 0);
    }

    #[test]
    fn numbers_are_seven_bits_a_byte() {
        let mut bytes = Vec::new();
        varint(&mut bytes, 300);
        assert_eq!(bytes, [0xac, 0x02]);
    }

    #[test]
    fn a_later_file_sorts_behind_earlier_ones() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..3)
            .map(|step| EventLog::open(folder.path(), step).unwrap().path().into())
            .collect();
        assert!(paths.is_sorted(), "{paths:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
