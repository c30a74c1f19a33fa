//! Files of the reference libraries, and comparisons of what they hold.

use std::path::{Path, PathBuf};

use model_import::Checkpoint;

/// A file of `tests/files`.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/files")
        .join(name)
}

/// What is said of a file that cannot be opened or read.
#[allow(dead_code, reason = "not every test binary reads damaged files")]
pub fn message(path: &Path) -> String {
    let read = || {
        let checkpoint = Checkpoint::open(path)?;
        checkpoint
            .names()
            .try_for_each(|name| checkpoint.tensor(name).map(drop))
    };
    read().expect_err("a damaged file").to_string()
}

/// What is said of a file after a change to its bytes.
#[allow(dead_code, reason = "not every test binary reads damaged files")]
pub fn edited(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bytes = std::fs::read(file(name)).expect("a file");
    change(&mut bytes);
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    message(&path)
}

/// Holds two files to the same names, shapes, data types and values; `missing` names are not in the first.
#[allow(dead_code, reason = "not every test binary compares")]
pub fn same_tensors(name: &str, expected: &str, missing: &[&str]) {
    let found = Checkpoint::open(&file(name)).unwrap_or_else(|e| panic!("{e}"));
    let expected = Checkpoint::open(&file(expected)).unwrap_or_else(|e| panic!("{e}"));
    let wanted: Vec<&str> = expected.names().filter(|n| !missing.contains(n)).collect();
    assert_eq!(found.names().collect::<Vec<_>>(), wanted, "{name}");
    for tensor in wanted {
        let left = found.tensor(tensor).unwrap_or_else(|e| panic!("{e}"));
        let right = expected.tensor(tensor).expect("a tensor");
        assert_eq!(
            found.info(tensor).expect("a tensor").shape,
            right.shape.to_vec(),
            "{tensor}"
        );
        assert_eq!(left, right, "{name}: {tensor}");
    }
}
