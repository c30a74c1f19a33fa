//! Real weights, where `RAGAR_TEST_WEIGHTS` names the folder that `tests/golden/weights.py` fills; skipped elsewhere.

use std::path::PathBuf;

use crate::cli::{ragar, stderr};

/// `part` of the folder of real weights, if it is there.
fn weights(part: &str) -> Option<PathBuf> {
    let found =
        std::env::var_os("RAGAR_TEST_WEIGHTS").map(|folder| PathBuf::from(folder).join(part));
    let found = found.filter(|path| path.exists());
    if found.is_none() {
        eprintln!(
            "skipped: no real weights; python tests/golden/weights.py FOLDER, then RAGAR_TEST_WEIGHTS=FOLDER"
        );
    }
    found
}

/// Logits of five prompts, and 64 greedy tokens after each: from safetensors, and from the 4-bit GGUF itself.
#[test]
fn smollm2_continues_as_the_reference() {
    let (Some(golden), Some(model), Some(gguf)) = (
        weights("smollm2/golden.safetensors"),
        weights("smollm2/model"),
        weights("smollm2-gguf"),
    ) else {
        return;
    };
    for folder in [model, gguf] {
        let path = |path: &PathBuf| path.display().to_string();
        let output = ragar(&["model", "check", &path(&folder), "--golden", &path(&golden)]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
}
