//! Whole, split, damaged and foreign files.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{AllocationProperty, TensorData};
use model_import::{Checkpoint, ImportError, read_tensors, write_tensors};

fn tensors(names: &[&str]) -> BTreeMap<String, TensorData> {
    let data = |i: usize| TensorData::new(vec![i as f32; 6], [2, 3]);
    names
        .iter()
        .enumerate()
        .map(|(i, name)| (name.to_string(), data(i)))
        .collect()
}

fn write(path: &Path, names: &[&str]) {
    write_tensors(path, &tensors(names), &BTreeMap::new()).expect("a written file");
}

fn error(path: &Path) -> ImportError {
    Checkpoint::open(path).expect_err("not a checkpoint")
}

/// A file with this header and this much data.
fn raw(path: &Path, header: &str, num_bytes: usize) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + num_bytes, 0);
    std::fs::write(path, bytes).expect("a written file");
}

fn index(folder: &Path, map: &[(&str, &str)]) {
    let map: BTreeMap<_, _> = map.iter().copied().collect();
    let text =
        serde_json::json!({ "metadata": { "total_size": 48 }, "weight_map": map }).to_string();
    std::fs::write(folder.join("model.safetensors.index.json"), text).expect("an index");
}

#[test]
fn data_types_survive() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("all.safetensors");
    let all = BTreeMap::from([
        (
            "i64".to_string(),
            TensorData::new(vec![-1i64, 1 << 40], [2]),
        ),
        ("u8".to_string(), TensorData::new(vec![1u8, 2, 3], [3])),
        ("bool".to_string(), TensorData::new(vec![true, false], [2])),
        ("f64".to_string(), TensorData::new(vec![0.1f64], [1])),
        (
            "scalar".to_string(),
            TensorData::new(vec![2.5f32], [0usize; 0]),
        ),
        (
            "empty".to_string(),
            TensorData::new(Vec::<f32>::new(), [0, 4]),
        ),
        (
            "ä.ö".to_string(),
            TensorData::new(vec![half::f16::ONE], [1]),
        ),
    ]);
    write_tensors(&path, &all, &BTreeMap::new()).expect("a written file");
    assert_eq!(read_tensors(&path).expect("a file"), all);
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("a.safetensors"), &["x", "y"]);
    write(&folder.path().join("b.safetensors"), &["z"]);
    let map = [
        ("x", "a.safetensors"),
        ("y", "a.safetensors"),
        ("z", "b.safetensors"),
    ];
    index(folder.path(), &map);
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["x", "y", "z"]);
    assert_eq!(checkpoint.files().count(), 2);
    assert_eq!(
        checkpoint
            .tensor("y")
            .expect("a tensor")
            .iter::<f32>()
            .next(),
        Some(1.0)
    );

    std::fs::remove_file(folder.path().join("b.safetensors")).expect("a removed file");
    let message = error(folder.path()).to_string();
    assert!(
        message.contains("missing shards: b.safetensors"),
        "{message}"
    );
}

#[test]
fn an_index_must_be_true_and_stay_in_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("a.safetensors"), &["x"]);
    write(&folder.path().join("b.safetensors"), &["x"]);
    index(
        folder.path(),
        &[("x", "a.safetensors"), ("y", "b.safetensors")],
    );
    assert!(matches!(
        error(folder.path()),
        ImportError::DuplicateTensor { other: Some(_), .. }
    ));
    index(
        folder.path(),
        &[("x", "a.safetensors"), ("y", "a.safetensors")],
    );
    let message = error(folder.path()).to_string();
    assert!(
        message.contains("`y` is in a.safetensors, but it is in none"),
        "{message}"
    );
    index(folder.path(), &[("x", "../a.safetensors")]);
    assert!(error(folder.path()).to_string().contains("plain file name"));
}

#[test]
fn a_truncated_file_says_how_much_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    write(&path, &["x", "y"]);
    let whole = std::fs::read(&path).expect("bytes");
    for keep in [whole.len() - 1, whole.len() - 30, 20] {
        std::fs::write(&path, &whole[..keep]).expect("a shorter file");
        let ImportError::Truncated {
            found, expected, ..
        } = error(&path)
        else {
            panic!("{}", error(&path));
        };
        assert_eq!(found, keep as u64);
        assert!(expected > found && expected <= whole.len() as u64);
    }
    let mut longer = whole.clone();
    longer.push(0);
    std::fs::write(&path, longer).expect("a longer file");
    assert!(matches!(error(&path), ImportError::TrailingBytes { .. }));
}

#[test]
fn foreign_files_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4242\n";
    for (bytes, part) in [
        (
            pointer.as_bytes(),
            "git-LFS pointer, not the weights (4242 bytes)",
        ),
        (b"PK\x03\x04 and so on", "PyTorch"),
        (b"\x80\x02}q\x00.", "PyTorch"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"", "empty"),
        (b"hello", "shorter than the 8 bytes"),
        (
            b"Lorem ipsum dolor sit amet",
            "does not start with a header",
        ),
    ] {
        std::fs::write(&path, bytes).expect("a file");
        let message = error(&path).to_string();
        assert!(message.contains(part), "{part} in {message}");
        assert!(message.contains("model.safetensors"), "{message}");
    }
}

#[test]
fn impossible_headers_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    for (header, part) in [
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            "`a` stands twice",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            "takes 12 bytes",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            "starts at byte 4",
        ),
        (
            r#"{"a":{"dtype":"Q3","shape":[1],"data_offsets":[0,8]}}"#,
            "unknown data type `Q3`",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,8]}}"#,
            "not possible",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551611,18446744073709551615]}}"#,
            "not possible",
        ),
        (r#"{"a":{"dtype":"F32","shape":"#, "header is not valid"),
    ] {
        raw(&path, header, 8);
        let message = error(&path).to_string();
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn folders_without_a_checkpoint_say_what_they_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config.json"), "{}").expect("a file");
    let message = error(folder.path()).to_string();
    assert!(
        message.contains("model.safetensors") && message.contains("config.json"),
        "{message}"
    );
    write(&folder.path().join("only.safetensors"), &["x"]);
    assert_eq!(
        Checkpoint::open(folder.path()).expect("the only one").len(),
        1
    );
    assert!(matches!(
        error(&folder.path().join("nowhere")),
        ImportError::NotFound { .. }
    ));
}

/// Weights large enough to be mapped.
fn write_large(path: &Path, names: &[&str]) -> BTreeMap<String, TensorData> {
    let data = |i: usize| TensorData::new(vec![i as f32; 128 * 256], [128, 256]);
    let large: BTreeMap<_, _> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (name.to_string(), data(i)))
        .collect();
    write_tensors(path, &large, &BTreeMap::new()).expect("a written file");
    large
}

#[test]
fn a_mapped_weight_outlives_the_file_that_took_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let written = write_large(&path, &["a", "b"]);
    let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
    let kept = checkpoint.tensor("b").expect("b");
    assert_eq!(kept.bytes.property(), AllocationProperty::File);
    // Replaced, as every writer here does it: what was opened stays.
    let other = folder.path().join("other.safetensors");
    write_large(&other, &["c", "b", "a", "d"]);
    std::fs::rename(&other, &path).expect("a replaced file");
    assert_eq!(kept, written["b"]);
    // A change of the tensor is the tensor's own.
    let mut changed = kept.clone();
    changed.bytes[0] = 7;
    assert_eq!(kept, written["b"]);
    assert_eq!(checkpoint.tensor("b").expect("b"), written["b"]);
}

#[test]
fn a_file_cut_short_after_it_was_opened_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    write_large(&path, &["a", "b"]);
    let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
    let size = std::fs::metadata(&path).expect("a size").len();
    let file = std::fs::OpenOptions::new().write(true).open(&path);
    file.expect("a file")
        .set_len(size - 4)
        .expect("a shorter file");
    let error = checkpoint.tensor("b").expect_err("four bytes short");
    assert!(error.to_string().contains("did the file change"), "{error}");
}
