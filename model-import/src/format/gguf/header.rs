//! The header of a GGUF file: counts, keys with values, tensor entries.
//!
//! Read by hand: the format is a page long, and the crates that parse it either bring an inference
//! engine along or take memory for whatever count a file states.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};

/// Tensors have at most this many dimensions (`GGML_MAX_DIMS`).
const LARGEST_RANK: u32 = 4;
/// Names of tensors and keys are short; a longer one is damage.
const LONGEST_NAME: u64 = 1 << 16;
/// Arrays may hold arrays. Real files never nest them.
const DEEPEST_ARRAY: usize = 4;

/// What stands before the tensors' data.
#[derive(Debug)]
pub(super) struct Header {
    /// Values as text; of arrays only their length (a tokenizer's are larger than all else).
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) entries: Vec<Entry>,
    /// First byte after the header, before alignment.
    pub(super) end: u64,
}

/// A tensor as the header describes it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Fastest dimension first, unlike everywhere else.
    pub(super) dimensions: Vec<u64>,
    pub(super) block_type: u32,
    /// Counted from the start of the data.
    pub(super) offset: u64,
}

/// A file read from the front, with the number of bytes that are left.
pub(super) struct Reader {
    file: BufReader<File>,
    left: u64,
    read: u64,
}

type Result<T> = std::result::Result<T, String>;

/// Reads the header of a file of `size` bytes.
pub(super) fn read(file: File, size: u64) -> Result<Header> {
    let mut reader = Reader {
        file: BufReader::new(file),
        left: size,
        read: 0,
    };
    reader.header()
}

impl Reader {
    fn header(&mut self) -> Result<Header> {
        let _magic: [u8; 4] = self.array()?;
        let version = self.u32()?;
        if version.swap_bytes() < 16 && version > 16 {
            return Err("its numbers are big-endian; use the little-endian file".into());
        }
        if !(2..=3).contains(&version) {
            return Err(format!(
                "version {version} is not supported (2 and 3 are); convert the model again with a current converter"
            ));
        }
        let num_tensors = self.u64()?;
        let num_keys = self.u64()?;
        // The shortest key is an empty name and one byte; the shortest tensor an empty name without dimensions.
        self.plausible(num_keys, 8 + 4 + 1, "keys")?;
        self.plausible(num_tensors, 8 + 4 + 4 + 8, "tensors")?;
        let mut metadata = BTreeMap::new();
        for _ in 0..num_keys {
            let key = self.name("a key")?;
            let kind = self.u32()?;
            let value = self.value(kind).map_err(|e| format!("key `{key}`: {e}"))?;
            metadata.insert(key, value);
        }
        let mut entries = Vec::new();
        for _ in 0..num_tensors {
            entries.push(self.entry()?);
        }
        Ok(Header {
            metadata,
            entries,
            end: self.read,
        })
    }

    fn entry(&mut self) -> Result<Entry> {
        let name = self.name("a tensor's name")?;
        let rank = self.u32()?;
        if rank > LARGEST_RANK {
            return Err(format!(
                "tensor `{name}` has {rank} dimensions, the format allows {LARGEST_RANK}; download it again"
            ));
        }
        Ok(Entry {
            name,
            dimensions: (0..rank).map(|_| self.u64()).collect::<Result<_>>()?,
            block_type: self.u32()?,
            offset: self.u64()?,
        })
    }

    /// A value as text.
    fn value(&mut self, kind: u32) -> Result<String> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).to_string(),
            1 => i8::from_le_bytes(self.array()?).to_string(),
            2 => u16::from_le_bytes(self.array()?).to_string(),
            3 => i16::from_le_bytes(self.array()?).to_string(),
            4 => self.u32()?.to_string(),
            5 => i32::from_le_bytes(self.array()?).to_string(),
            6 => f32::from_le_bytes(self.array()?).to_string(),
            7 => (self.array::<1>()? != [0]).to_string(),
            8 => {
                let length = self.u64()?;
                self.text(length)?
            }
            9 => format!("[{} values]", self.skip_array(0)?),
            10 => self.u64()?.to_string(),
            11 => i64::from_le_bytes(self.array()?).to_string(),
            12 => f64::from_le_bytes(self.array()?).to_string(),
            other => {
                return Err(format!(
                    "value type {other} is unknown; the file is damaged"
                ));
            }
        })
    }

    /// Passes over an array and says how long it is.
    fn skip_array(&mut self, depth: usize) -> Result<u64> {
        let kind = self.u32()?;
        let count = self.u64()?;
        let each = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                self.plausible(count, 8, "texts")?;
                for _ in 0..count {
                    let length = self.u64()?;
                    self.skip(length)?;
                }
                return Ok(count);
            }
            9 if depth < DEEPEST_ARRAY => {
                self.plausible(count, 12, "arrays")?;
                for _ in 0..count {
                    self.skip_array(depth + 1)?;
                }
                return Ok(count);
            }
            9 => return Err("arrays are nested too deep; the file is damaged".into()),
            other => {
                return Err(format!(
                    "value type {other} is unknown; the file is damaged"
                ));
            }
        };
        self.plausible(count, each, "values")?;
        self.skip(count * each)?;
        Ok(count)
    }

    /// Refuses a count that the rest of the file cannot hold.
    fn plausible(&self, count: u64, each: u64, what: &str) -> Result<()> {
        match count.checked_mul(each) {
            Some(bytes) if bytes <= self.left => Ok(()),
            _ => Err(format!(
                "it promises {count} {what}, but only {} bytes follow: it is damaged or cut short; download it again",
                self.left
            )),
        }
    }

    fn take(&mut self, count: u64) -> Result<()> {
        self.left = self.left.checked_sub(count).ok_or_else(|| {
            format!(
                "truncated: {count} bytes are promised at byte {}, {} follow; download it again",
                self.read, self.left
            )
        })?;
        self.read += count;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N as u64)?;
        let mut bytes = [0; N];
        self.file
            .read_exact(&mut bytes)
            .map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        self.take(count)?;
        let step = i64::try_from(count).map_err(|e| e.to_string())?;
        self.file.seek_relative(step).map_err(|e| e.to_string())
    }

    fn text(&mut self, length: u64) -> Result<String> {
        self.take(length)?;
        // Within the file, as `take` has seen.
        let mut bytes = vec![0; length as usize];
        self.file
            .read_exact(&mut bytes)
            .map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn name(&mut self, what: &str) -> Result<String> {
        let length = self.u64()?;
        if length > LONGEST_NAME {
            return Err(format!(
                "{what} of {length} bytes at byte {}: it is damaged; download it again",
                self.read
            ));
        }
        self.text(length)
    }
}
