//! What a PyTorch file is wrapped in: a zip archive, or pickles and storages in a row.

use std::collections::BTreeMap;

use super::archive;
use super::pickle::{self, Id, Objects, PickleError, Value, broken};
use crate::format::DiskFile;

/// No model needs a larger description of its tensors; one object takes up to 40 times its bytes.
const LARGEST_PICKLE: u64 = 16 << 20;
/// The first pickle of a file in a row: the number 0x1950a86a20f9469cfc6c.
const ROW_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";
const BIG_ENDIAN: &str = "its numbers are big-endian; save it on a little-endian machine";

type Result<T> = std::result::Result<T, PickleError>;

/// What a file holds: the objects of its pickle and the places of its storages.
pub(super) struct Contents {
    pub(super) objects: Objects,
    pub(super) root: Id,
    pub(super) pickle_bytes: usize,
    pub(super) storages: BTreeMap<String, Stored>,
}

/// A storage in the file.
pub(super) struct Stored {
    pub(super) offset: u64,
    pub(super) num_bytes: u64,
}

pub(super) fn read(file: &DiskFile) -> Result<Contents> {
    let start = file.start(512).map_err(|e| broken(e.to_string()))?;
    if start.starts_with(b"PK") {
        in_archive(file)
    } else if start.starts_with(ROW_MAGIC) {
        in_row(file)
    } else {
        Err(broken(
            "it is a pickle, but not one that `torch.save` writes; save the weights with `torch.save(model.state_dict(), path)`",
        ))
    }
}

/// A zip archive: `NAME/data.pkl`, `NAME/byteorder`, `NAME/data/0`, …, none of them compressed.
fn in_archive(file: &DiskFile) -> Result<Contents> {
    let entries = archive::entries(file)?;
    let find = |name: &str| entries.iter().find(|entry| entry.name == name);
    let mut pickles = entries
        .iter()
        .filter(|entry| entry.name.ends_with("/data.pkl") || entry.name == "data.pkl");
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return Err(broken(
            "it is a zip archive without `data.pkl`; a PyTorch file of weights has one",
        ));
    };
    let folder = &pickle.name[..pickle.name.len() - "data.pkl".len()];
    if find(&format!("{folder}constants.pkl")).is_some() {
        return Err(broken(
            "it is a TorchScript program; save the `state_dict()` of the model instead",
        ));
    }
    let read = |entry: &archive::Entry, limit: u64| -> Result<Vec<u8>> {
        let (offset, num_bytes) = entry.plain()?;
        if num_bytes > limit {
            return Err(broken(format!(
                "`{}` has {num_bytes} bytes; {limit} are more than any model needs",
                entry.name
            )));
        }
        file.bytes(offset, num_bytes)
            .map_err(|e| broken(e.to_string()))
    };
    if let Some(order) = find(&format!("{folder}byteorder"))
        && read(order, 64)?.starts_with(b"big")
    {
        return Err(broken(BIG_ENDIAN));
    }
    let bytes = read(pickle, LARGEST_PICKLE)?;
    let (objects, root, _) = pickle::read(&bytes)?;
    let data = format!("{folder}data/");
    let mut storages = BTreeMap::new();
    for entry in &entries {
        if let Some(key) = entry.name.strip_prefix(&data) {
            let (offset, num_bytes) = entry.plain()?;
            storages.insert(key.into(), Stored { offset, num_bytes });
        }
    }
    Ok(Contents {
        objects,
        root,
        pickle_bytes: bytes.len(),
        storages,
    })
}

/// Pickles in a row: a magic number, the version, the system, the tensors, the storages' keys. Then each
/// storage in the order of the keys, its number of values before it.
fn in_row(file: &DiskFile) -> Result<Contents> {
    let bytes = file
        .start(LARGEST_PICKLE)
        .map_err(|e| broken(e.to_string()))?;
    let mut place = 0;
    let mut next = || -> Result<(Objects, Id)> {
        let (objects, root, length) = pickle::read(&bytes[place..])?;
        place += length;
        Ok((objects, root))
    };
    let _magic = next()?;
    let _version = next()?;
    let (system, root) = next()?;
    if let Value::Dict(entries) = system.get(root)
        && entries.iter().any(|(key, value)| {
            system.text(*key) == Some("little_endian") && system.int(*value) == Some(0)
        })
    {
        return Err(broken(BIG_ENDIAN));
    }
    let (objects, root) = next()?;
    let (keys, keys_root) = next()?;
    let widths = objects.storage_widths();
    let mut offset = place as u64;
    let mut storages = BTreeMap::new();
    for id in keys.tuple(keys_root).unwrap_or_default() {
        let key = keys.text(*id).unwrap_or_default();
        let Some(width) = widths.get(key) else {
            return Err(broken(format!("storage `{key}` belongs to no tensor")));
        };
        let count = file
            .bytes(offset, 8)
            .ok()
            .and_then(|bytes| Some(u64::from_le_bytes(*bytes.first_chunk()?)));
        let num_bytes = count.and_then(|count| count.checked_mul(*width));
        offset += 8;
        let stored = num_bytes
            .map(|num_bytes| Stored { offset, num_bytes })
            .filter(|s| {
                s.offset
                    .checked_add(s.num_bytes)
                    .is_some_and(|end| end <= file.size())
            })
            .ok_or_else(|| {
                broken(format!(
                    "truncated: storage `{key}` ends beyond the file's {} bytes; download it again",
                    file.size()
                ))
            })?;
        offset += stored.num_bytes;
        storages.insert(key.into(), stored);
    }
    Ok(Contents {
        objects,
        root,
        pickle_bytes: place,
        storages,
    })
}
