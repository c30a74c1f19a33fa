//! `ragar rank train` over folders with everything that goes wrong in interactions and features: handled as
//! `docs/ranking.md` says, or refused by name.

use std::path::Path;

use model_import::read_tensors_with_metadata;

use crate::cli::{ragar, refuses, stderr, stdout};

const NUM_ITEMS: usize = 9;

/// Item 8 is touched by nobody; `lone` has one interaction.
fn tidy() -> Vec<(&'static str, usize, u32)> {
    let mut lines = Vec::new();
    for (place, user) in ["ann", "bob", "cem", "dee"].into_iter().enumerate() {
        for time in 0..6 {
            lines.push((user, (place + time * 3 + time / 3) % 8, time as u32));
        }
    }
    lines.push(("lone", 2, 0));
    lines
}

fn table(lines: &[(&str, usize, u32)]) -> String {
    let mut text = "user_id,item_id,timestamp\n".to_string();
    for (user, item, time) in lines {
        text += &format!("{user},i{item},{time}\n");
    }
    text
}

/// A folder whose item 3 has no picture, item 5 no text, and item 7 neither: their features are zero.
fn write_folder(folder: &Path, interactions: impl AsRef<[u8]>) {
    image::RgbImage::new(2, 2)
        .save(folder.join("none.png"))
        .expect("a picture");
    let mut items = "item_id,image,text\n".to_string();
    for item in 0..NUM_ITEMS {
        let text = if [5, 7].contains(&item) { "" } else { "word" };
        items += &format!("i{item},none.png,{text}\n");
    }
    std::fs::write(folder.join("items.csv"), items).expect("a file");
    std::fs::write(folder.join("interactions.csv"), interactions).expect("a file");
    let history = r#"{"user":"ann","history":["i0","i1"],"reference":"i2"}"#;
    std::fs::write(folder.join("histories.jsonl"), history).expect("a file");
    let features = |width: usize, without: [usize; 2]| -> Vec<u8> {
        let value = |place: usize| match without.contains(&(place / width)) {
            true => 0.0,
            false => ((place * 7 + place / 5) % 11) as f32 - 5.0,
        };
        let values = (0..NUM_ITEMS * width).map(value);
        values.flat_map(f32::to_le_bytes).collect()
    };
    let (image, text) = (features(3, [3, 7]), features(2, [5, 7]));
    let view = |values, width| {
        let shape = vec![NUM_ITEMS, width];
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, values)
            .expect("a table")
    };
    let bytes =
        safetensors::serialize([("image", view(&image, 3)), ("text", view(&text, 2))], None)
            .expect("bytes");
    std::fs::write(folder.join("features.safetensors"), bytes).expect("a file");
}

fn words(folder: &Path, kind: &str) -> Vec<String> {
    let features = folder.join("features.safetensors");
    let mut words: Vec<String> = ["rank", "train", "--json", "--device", "flex", "--out"]
        .map(String::from)
        .to_vec();
    words.push(folder.join("run").display().to_string());
    for setting in [
        format!("data.folder={}", folder.display()),
        "data.history_length=0".into(),
        format!("ranking.features={}", features.display()),
        format!("ranking.model.kind={kind}"),
        // More neighbours than there are items.
        "ranking.model.num_neighbours=50".into(),
        "ranking.model.dense_cells=0".into(),
        "ranking.model.embedding_width=4".into(),
        "ranking.training.batch_size=8".into(),
        "ranking.training.max_epochs=2".into(),
        "ranking.training.learning_rate=0.05".into(),
    ] {
        words.extend(["--set".into(), setting]);
    }
    words
}

/// Every value of the trained model, by tensor.
fn train(interactions: &str, kind: &str, more: &[&str]) -> Vec<(String, Vec<f32>)> {
    let folder = tempfile::tempdir().expect("a folder");
    write_folder(folder.path(), interactions);
    let words = words(folder.path(), kind);
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(more);
    let output = ragar(&words);
    assert_eq!(output.status.code(), Some(0), "{kind}: {}", stderr(&output));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("a document");
    for list in report["test"].as_array().expect("lists") {
        let recall = list["recall"].as_f64().expect("a number");
        assert!((0.0..=1.0).contains(&recall), "{kind}: {list}");
    }
    let weights = folder.path().join("run/model.safetensors");
    let (tensors, _) = read_tensors_with_metadata(&weights).expect("weights");
    tensors
        .into_iter()
        .map(|(name, data)| (name, data.iter::<f32>().collect()))
        .collect()
}

#[test]
fn awkward_interactions_and_features_train_without_nan() {
    for kind in ["micro", "lattice", "light-gcn", "matrix-factorisation"] {
        for (name, values) in train(&table(&tidy()), kind, &[]) {
            assert!(values.iter().all(|v| v.is_finite()), "{kind}: {name}");
        }
    }
}

#[test]
fn order_and_repetition_of_lines_do_not_matter() {
    let expected = train(&table(&tidy()), "micro", &[]);
    // Each user's lines backwards, and some of them again later: the first meeting counts.
    let mut lines: Vec<_> = tidy();
    for own in lines.chunk_by_mut(|a, b| a.0 == b.0) {
        own.reverse();
    }
    let again: Vec<_> = lines.iter().step_by(3).copied().collect();
    lines.extend(again.iter().map(|&(user, item, _)| (user, item, 90)));
    lines.extend(again);
    assert_eq!(train(&table(&lines), "micro", &[]), expected);

    // Lines that name unknown items go where that is asked for, and change nothing.
    lines.insert(4, ("ann", 77, 3));
    let skipped = ["--set", "data.skip_bad=true"];
    assert_eq!(train(&table(&lines), "micro", &skipped), expected);

    // The comparison is able to fail.
    let mut other = tidy();
    other[0].1 = 5;
    assert_ne!(train(&table(&other), "micro", &[]), expected);
}

#[test]
fn unusable_interactions_are_refused_by_name() {
    let header = "user_id,item_id,timestamp\n";
    let cases: [(Vec<u8>, &[&str]); 4] = [
        (
            format!("{header}ann,i0,1\nann,zebra,2\n").into(),
            &["interactions.csv, row 3, item_id", "zebra"],
        ),
        (
            [header.as_bytes(), b"caf\xe9,i0,1\n"].concat(),
            &["interactions.csv, row 2, user_id", "UTF-8"],
        ),
        (
            format!("{header}ann,i0,soon\n").into(),
            &["interactions.csv, row 2, timestamp", "soon"],
        ),
        (
            format!("{header}ann,i0\n").into(),
            &["interactions.csv, row 2", "2 fields, expected 3"],
        ),
    ];
    for (interactions, expected) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        write_folder(folder.path(), &interactions);
        let words = words(folder.path(), "micro");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refuses(&words, 1, expected);
    }
}
