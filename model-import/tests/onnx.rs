//! Exported graphs against the weights they were exported from.
#![cfg(feature = "onnx")]

mod support;

use model_import::Checkpoint;
use support::{edited, file, message, same_tensors};

/// The position table of an export with a fixed length is folded away: nothing can bring it back.
const POSITIONS: &str = "text_model.embeddings.position_embedding.weight";

#[test]
fn folded_and_transposed_weights_are_traced_to_their_modules() {
    same_tensors("clip.onnx", "clip.safetensors", &[]);
    same_tensors("picture.onnx", "picture.safetensors", &[]);
}

#[test]
fn the_newer_exporters_graphs_are_traced_too() {
    same_tensors("clip.dynamo.onnx", "clip.safetensors", &[POSITIONS]);
    same_tensors("picture.dynamo.onnx", "picture.safetensors", &[]);
}

#[test]
fn equal_tensors_that_are_stored_once_come_under_all_their_names() {
    same_tensors("fresh.onnx", "fresh.safetensors", &[]);
    same_tensors("fresh.dynamo.onnx", "fresh.safetensors", &[POSITIONS]);
}

#[test]
fn values_may_lie_in_a_file_beside_the_graph() {
    same_tensors("external/model.onnx", "picture.safetensors", &[]);
    let checkpoint = Checkpoint::open(&file("external")).expect("a folder");
    assert!(!checkpoint.is_empty());
}

#[test]
fn values_may_lie_in_typed_lists() {
    let checkpoint = Checkpoint::open(&file("typed.onnx")).expect("a checkpoint");
    let values = |name: &str| {
        checkpoint
            .tensor(name)
            .expect("a tensor")
            .iter::<f32>()
            .collect::<Vec<_>>()
    };
    for name in ["typed.float", "typed.half", "typed.double", "typed.bfloat"] {
        assert_eq!(values(name), [1.5, -2.0, 0.25, 3.0, 4.0, -0.5], "{name}");
    }
    for name in ["typed.int32", "typed.int64", "typed.uint8"] {
        assert_eq!(values(name), [1.0, 2.0, 0.0, 3.0, 4.0, 0.0], "{name}");
    }
}

#[test]
fn external_values_must_be_there_and_inside_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let graph = folder.path().join("model.onnx");
    std::fs::copy(file("external/model.onnx"), &graph).expect("a copy");
    let text = message(&graph);
    assert!(
        text.contains("model.onnx.data")
            && text.contains("no such file")
            && text.contains("tensor `"),
        "{text}"
    );
    std::fs::write(folder.path().join("model.onnx.data"), [0; 100]).expect("a file");
    let text = message(&graph);
    assert!(
        text.contains("truncated") && text.contains("model.onnx.data"),
        "{text}"
    );

    let mut bytes = std::fs::read(&graph).expect("bytes");
    let (inside, outside) = (b"model.onnx.data", b"../../etc/passw");
    for place in 0..bytes.len() - inside.len() {
        if bytes[place..].starts_with(inside) {
            bytes[place..place + inside.len()].copy_from_slice(outside);
        }
    }
    std::fs::write(&graph, bytes).expect("a file");
    assert!(message(&graph).contains("not inside the graph's folder"));
}

#[test]
fn damaged_graphs_are_explained() {
    for keep in [1, 100, 2000] {
        let text = edited("picture.onnx", |copy| copy.truncate(keep));
        assert!(text.contains("picture.onnx"), "{text}");
    }
}
