//! Every format against the same weights in safetensors, both written by the reference libraries
//! (`tests/files/write.py`); and files that are to be refused.

mod support;

use std::path::Path;

use burn::tensor::DType;
use model_import::{Checkpoint, ImportError};
use support::{edited, file, message, same_tensors};

#[test]
fn pytorch_files_hold_the_same_as_safetensors() {
    for name in ["clip.bin", "clip.legacy.bin", "sharded-bin"] {
        same_tensors(name, "clip.safetensors", &[]);
    }
}

#[test]
fn half_precision_comes_as_it_is() {
    let full = Checkpoint::open(&file("clip.safetensors")).expect("a checkpoint");
    for (name, dtype) in [
        ("clip.bf16.pt", DType::BF16),
        ("clip.fp16.safetensors", DType::F16),
    ] {
        let half = Checkpoint::open(&file(name)).expect("a checkpoint");
        assert_eq!(half.len(), full.len());
        for tensor in full.names() {
            let expected = full.tensor(tensor).expect("a tensor").convert_dtype(dtype);
            assert_eq!(half.tensor(tensor).expect("a tensor"), expected, "{tensor}");
        }
    }
}

#[test]
fn views_of_a_shared_storage_come_in_the_order_of_their_shape() {
    same_tensors("views.pt", "views.safetensors", &[]);
    same_tensors("views.legacy.pt", "views.safetensors", &[]);
}

#[test]
fn weights_are_found_beside_an_optimiser() {
    let checkpoint = Checkpoint::open(&file("training.ckpt")).expect("a checkpoint");
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["bias", "weight"]);
    assert_eq!(checkpoint.info("weight").expect("a tensor").shape, [2, 3]);
}

#[test]
fn a_pickle_that_calls_anything_else_is_refused_and_not_run() {
    for name in ["calls.pt", "calls.legacy.pt"] {
        let error = Checkpoint::open(&file(name)).expect_err("a refusal");
        assert!(
            matches!(&error, ImportError::Forbidden { callable, .. } if callable.ends_with("system")),
            "{error}"
        );
        assert!(
            error.to_string().contains(name) && error.to_string().contains("nothing was run"),
            "{error}"
        );
    }
    assert!(!Path::new("/tmp/was-run").exists());
    for (name, part) in [
        (
            "expanded.pt",
            "`expanded`: shape [1000, 1000] repeats the values",
        ),
        ("whole_model.pt", "calls `"),
        ("script.pt", "TorchScript"),
    ] {
        let text = message(&file(name));
        assert!(text.contains(part) && text.contains(name), "{text}");
    }
}

#[test]
fn a_llama_in_gguf_has_the_hubs_names_and_rows() {
    same_tensors("llama.gguf", "llama.safetensors", &[]);
    same_tensors("llama.q8_0.gguf", "llama.q8_0.safetensors", &[]);
    let checkpoint = Checkpoint::open(&file("llama.q8_0.gguf")).expect("a checkpoint");
    let query = checkpoint.info("model.layers.0.self_attn.q_proj.weight");
    assert_eq!(query.expect("a tensor").dtype.to_string(), "Q8_0");
    let metadata = checkpoint.metadata();
    assert_eq!(metadata["llama.attention.head_count"], "4");
    assert_eq!(metadata["tokenizer.ggml.tokens"], "[3 values]");
}

#[test]
fn quantised_blocks_are_dequantised_to_the_last_bit() {
    same_tensors("blocks.gguf", "blocks.safetensors", &[]);
}

#[test]
fn damaged_gguf_files_are_explained() {
    let whole = std::fs::read(file("blocks.gguf")).expect("bytes");
    let absurd = u64::MAX.to_le_bytes();
    for (place, bytes, part) in [
        (4, &99u32.to_le_bytes()[..], "version 99"),
        (4, &3u32.to_be_bytes()[..], "big-endian"),
        (8, &absurd[..], "promises 18446744073709551615 tensors"),
        (16, &absurd[..], "promises 18446744073709551615 keys"),
        (24, &absurd[..], "a key of 18446744073709551615 bytes"),
    ] {
        let text = edited("blocks.gguf", |copy| {
            copy[place..place + bytes.len()].copy_from_slice(bytes)
        });
        assert!(
            text.contains(part) && text.contains("blocks.gguf"),
            "{part} in {text}"
        );
    }
    for keep in [3, 20, 60, whole.len() / 2, whole.len() - 40] {
        let text = edited("blocks.gguf", |copy| copy.truncate(keep));
        assert!(text.contains("blocks.gguf"), "{text}");
    }
}

#[test]
fn damaged_pytorch_files_are_explained() {
    let half = |copy: &mut Vec<u8>| copy.truncate(copy.len() / 2);
    let text = edited("clip.bin", half);
    assert!(
        text.contains("table is missing") && text.contains("download it again"),
        "{text}"
    );
    let text = edited("clip.legacy.bin", |copy| copy.truncate(copy.len() - 100));
    assert!(text.contains("truncated: storage"), "{text}");
    let text = edited("clip.legacy.bin", |copy| copy.truncate(300));
    assert!(text.contains("ends in the middle"), "{text}");
}

#[test]
fn a_header_whose_length_looks_like_a_pickle_is_still_safetensors() {
    // 640 bytes of header begin as protocol 2 of a pickle does: 0x80 0x02.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let mut header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.to_string();
    header.push_str(&" ".repeat(640 - header.len()));
    let mut bytes = 640u64.to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&1f32.to_le_bytes());
    std::fs::write(&path, bytes).expect("a file");
    assert_eq!(Checkpoint::open(&path).expect("a checkpoint").len(), 1);
}

#[test]
fn an_index_may_not_lead_out_of_its_folder() {
    for shard in ["../clip.bin", "/etc/passwd", "a/b.bin", ".."] {
        let folder = tempfile::tempdir().expect("a folder");
        let index = serde_json::json!({ "weight_map": { "x": shard } }).to_string();
        std::fs::write(folder.path().join("pytorch_model.bin.index.json"), index).expect("a file");
        let text = message(folder.path());
        assert!(
            text.contains("plain file name") && text.contains(shard),
            "{text}"
        );
    }
}

#[cfg(not(feature = "onnx"))]
#[test]
fn without_its_feature_onnx_says_how_to_get_it() {
    assert!(message(&file("typed.onnx")).contains("--features onnx"));
}
