//! The table of a zip archive: names, sizes and places of its entries.
//!
//! Read by hand because that is all that is needed, and because the crate for it reserves memory for
//! the number of entries that an archive states, three hundred times the size of a hostile file.

use super::pickle::{PickleError, broken};
use crate::format::DiskFile;

const END: &[u8] = b"PK\x05\x06";
const END_SIZE: u64 = 22;
const WIDE_END: &[u8] = b"PK\x06\x06";
const WIDE_LOCATOR: &[u8] = b"PK\x06\x07";
const WIDE_LOCATOR_SIZE: u64 = 20;
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_SIZE: usize = 46;
const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_SIZE: u64 = 30;
/// A comment after the table; PyTorch writes none.
const LONGEST_COMMENT: u64 = u16::MAX as u64;

type Result<T> = std::result::Result<T, PickleError>;

/// A file within the archive.
pub(super) struct Entry {
    pub(super) name: String,
    offset: u64,
    num_bytes: u64,
    /// Whether its bytes stand in the archive as they are.
    is_plain: bool,
}

impl Entry {
    /// First byte in the archive and number of bytes, of an entry that needs no unpacking.
    pub(super) fn plain(&self) -> Result<(u64, u64)> {
        if self.is_plain {
            return Ok((self.offset, self.num_bytes));
        }
        Err(broken(format!(
            "`{}` is compressed or encrypted, as `torch.save` never does; load and save it again",
            self.name
        )))
    }
}

/// Every entry of the archive.
pub(super) fn entries(file: &DiskFile) -> Result<Vec<Entry>> {
    let (start, size) = table(file)?;
    let table = read(file, start, size)?;
    let mut rest = table.as_slice();
    let mut entries = Vec::new();
    while rest.starts_with(ENTRY) && rest.len() >= ENTRY_SIZE {
        let (name, extra, comment) = (short(rest, 28), short(rest, 30), short(rest, 32));
        let (flags, method) = (short(rest, 8), short(rest, 10));
        let mut packed = word(rest, 20);
        let mut num_bytes = word(rest, 24);
        let mut local = word(rest, 42);
        let name_end = ENTRY_SIZE + name;
        let extra_end = name_end + extra;
        let (Some(name), Some(extra), Some(after)) = (
            rest.get(ENTRY_SIZE..name_end),
            rest.get(name_end..extra_end),
            rest.get(extra_end + comment..),
        ) else {
            return Err(damaged("its table is cut short"));
        };
        let name = String::from_utf8_lossy(name).into_owned();
        // Sizes of four gigabytes and more stand among the extra fields, in this order.
        let mut wide = wide_fields(extra);
        for field in [&mut num_bytes, &mut packed, &mut local] {
            if *field == u64::from(u32::MAX) {
                *field = wide.next().ok_or_else(|| damaged("a size is missing"))?;
            }
        }
        let header = read(file, local, LOCAL_SIZE)?;
        if !header.starts_with(LOCAL) {
            return Err(damaged("an entry is not where its table says"));
        }
        // No overflow: the local header was read, and the two lengths are short.
        let offset = local + LOCAL_SIZE + (short(&header, 26) + short(&header, 28)) as u64;
        if offset
            .checked_add(packed)
            .is_none_or(|end| end > file.size())
        {
            return Err(broken(format!(
                "truncated: `{name}` ends beyond the file's {} bytes; download it again",
                file.size()
            )));
        }
        entries.push(Entry {
            name,
            offset,
            num_bytes,
            is_plain: method == 0 && flags & 1 == 0 && packed == num_bytes,
        });
        rest = after;
    }
    Ok(entries)
}

/// Place and size of the table of entries.
fn table(file: &DiskFile) -> Result<(u64, u64)> {
    let tail_start = file.size().saturating_sub(END_SIZE + LONGEST_COMMENT);
    let tail = read(file, tail_start, file.size() - tail_start)?;
    let place = tail
        .windows(END_SIZE as usize)
        .rposition(|window| window.starts_with(END))
        .ok_or_else(|| damaged("its table is missing"))?;
    let end = &tail[place..];
    let (size, start) = (word(end, 12), word(end, 16));
    let end_place = tail_start + place as u64;
    let locator = end_place.checked_sub(WIDE_LOCATOR_SIZE);
    let locator = locator.and_then(|place| read(file, place, WIDE_LOCATOR_SIZE).ok());
    if let Some(locator) = locator.filter(|l| l.starts_with(WIDE_LOCATOR)) {
        let wide = read(file, long(&locator, 8), 56)?;
        if !wide.starts_with(WIDE_END) {
            return Err(damaged("its table is not where it says"));
        }
        return Ok((long(&wide, 48), long(&wide, 40)));
    }
    Ok((start, size))
}

/// The values of the extra field for large files.
fn wide_fields(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut found: &[u8] = &[];
    while extra.len() >= 4 {
        let (kind, length) = (short(extra, 0), short(extra, 2));
        let body = extra.get(4..4 + length).unwrap_or_default();
        if kind == 1 {
            found = body;
            break;
        }
        extra = extra.get(4 + length..).unwrap_or_default();
    }
    found.chunks_exact(8).map(|bytes| long(bytes, 0))
}

fn damaged(what: &str) -> PickleError {
    broken(format!(
        "its archive is damaged or cut short ({what}); download it again"
    ))
}

fn read(file: &DiskFile, offset: u64, length: u64) -> Result<Vec<u8>> {
    file.bytes(offset, length)
        .map_err(|e| damaged(&e.to_string()))
}

fn short(bytes: &[u8], place: usize) -> usize {
    u16::from_le_bytes([bytes[place], bytes[place + 1]]).into()
}

fn word(bytes: &[u8], place: usize) -> u64 {
    (short(bytes, place) + (short(bytes, place + 2) << 16)) as u64
}

fn long(bytes: &[u8], place: usize) -> u64 {
    word(bytes, place) + (word(bytes, place + 4) << 32)
}
