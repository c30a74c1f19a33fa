//! The house rules that a reader relies on: imports go down only, one file names backends.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by layer, from the bottom; the picture in `src/lib.rs` is held to this below.
const LAYERS: [&[&str]; 7] = [
    &["nn", "text", "optimisation"],
    &["networks", "recommender", "data"],
    &["features", "pretrained"],
    &["retrieval", "generation"],
    &["reflection", "preparation", "baselines"],
    &["training", "pretraining", "evaluation"],
    &["app"],
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Every Rust file beneath `folder`, with its text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a source folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path, text));
            }
        }
    }
    found
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

/// The room that a file of `src/` belongs to; `None` for `lib.rs` and `main.rs`.
fn room_of(path: &Path) -> Option<String> {
    let inner = path.strip_prefix(root().join("src")).ok()?;
    let first = inner.components().next()?.as_os_str().to_str()?;
    (!first.ends_with(".rs")).then(|| first.to_string())
}

/// Rooms named after `crate::` in the code, comments aside; `use crate::{a, b}` counts too.
fn imports(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n");
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut found = Vec::new();
    for (at, mark) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + mark.len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(list) => {
                // Names at the first depth of the braces.
                let mut depth = 0;
                let mut name = String::new();
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            found.push(word(name.trim()));
                            name.clear();
                            continue;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        name.push(c);
                    }
                }
                found.push(word(name.trim()));
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn the_reader_of_imports_sees_all_forms() {
    let text = "use crate::nn::x; // crate::app\nuse crate::{data::{a, b}, text};\nlet a = crate::networks::clip();";
    assert_eq!(imports(text), ["nn", "data", "text", "networks"]);
}

#[test]
fn imports_go_down_only() {
    let mut broken = Vec::new();
    for (path, text) in sources(&root().join("src")) {
        let Some(room) = room_of(&path) else { continue };
        let here = layer(&room).unwrap_or_else(|| panic!("{room} has no layer"));
        for other in imports(&text) {
            if other == room {
                continue;
            }
            match layer(&other) {
                Some(there) if there < here => {}
                Some(_) => broken.push(format!("{}: {room} uses {other}", path.display())),
                None => broken.push(format!("{}: crate::{other} is no room", path.display())),
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_the_application_and_pretrained_touch_model_files() {
    let mut broken = Vec::new();
    for (path, text) in sources(&root().join("src")) {
        let Some(room) = room_of(&path) else { continue };
        if room != "app" && room != "pretrained" && imports(&text).contains(&"pretrained".into()) {
            broken.push(format!("{}: {room} uses pretrained", path.display()));
        }
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        if room != "app"
            && room != "pretrained"
            && code.into_iter().any(|line| line.contains("model_import"))
        {
            broken.push(format!("{}: {room} uses model_import", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn model_import_does_not_know_ragar() {
    for (path, text) in sources(&root().join("model-import/src")) {
        assert!(!text.contains("ragar::"), "{}", path.display());
    }
}

#[test]
fn one_file_names_backends() {
    let mut broken = Vec::new();
    for (path, text) in sources(&root().join("src")) {
        if path.ends_with("app/backend.rs") {
            continue;
        }
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            // A file format behind a feature is no backend; its one switch stands where tables are opened.
            let opens_tables =
                path.ends_with("data/loading/table.rs") && line.contains("\"parquet\"");
            let says_feature = (line.contains("cfg(feature") || line.contains("cfg!(feature"))
                || line.contains("cfg(not(feature");
            let says_feature = says_feature && !opens_tables;
            let names_backend = [
                "burn::backend::",
                "burn_dispatch",
                "DispatchDevice",
                "burn::Dispatch",
            ]
            .iter()
            .any(|name| line.contains(name));
            if says_feature || names_backend {
                broken.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_picture_in_lib_rs_shows_the_same_layers() {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let picture = text
        .lines()
        .skip_while(|line| !line.contains("```text"))
        .skip(1)
        .take_while(|line| !line.contains("```"));
    let mut seen = 0;
    for line in picture {
        let words: Vec<&str> = line.trim_start_matches("//!").split_whitespace().collect();
        let Some(number) = words.first().and_then(|word| word.parse::<usize>().ok()) else {
            panic!("not a layer: {line}");
        };
        if number == 0 {
            continue;
        }
        let mut drawn: Vec<&str> = words[1..]
            .iter()
            .copied()
            .take_while(|word| number != LAYERS.len() || *word == "app")
            .filter(|word| *word != "·")
            .collect();
        let mut known = LAYERS[number - 1].to_vec();
        drawn.sort_unstable();
        known.sort_unstable();
        assert_eq!(drawn, known, "layer {number}");
        seen += 1;
    }
    assert_eq!(seen, LAYERS.len());
}
