//! `ragar study assumptions` over a small folder whose feature file stands in for all networks.

use std::path::Path;

use serde_json::Value;

use crate::cli::{ragar, refuses, stderr, stdout};

const NUM_ITEMS: usize = 24;
const NUM_USERS: usize = 12;
const K: usize = 2;

/// Users of two tastes. Everyone's history holds both; the last item is of their own.
fn history(user: usize) -> Vec<usize> {
    let own = user % 2;
    let item =
        |taste: usize, place: usize| taste * NUM_ITEMS / 2 + (user + place) % (NUM_ITEMS / 2);
    vec![
        item(own, 0),
        item(1 - own, 1),
        item(own, 2),
        item(1 - own, 3),
        item(1 - own, 5),
        item(own, 4),
    ]
}

fn write_folder(folder: &Path) {
    image::RgbImage::new(2, 2)
        .save(folder.join("none.png"))
        .expect("a picture");
    let mut items = "item_id,image,text\n".to_string();
    for item in 0..NUM_ITEMS {
        items += &format!("i{item},none.png,word\n");
    }
    std::fs::write(folder.join("items.csv"), items).expect("a file");
    let mut interactions = "user_id,item_id,timestamp\n".to_string();
    for user in 0..NUM_USERS {
        for (time, item) in history(user).into_iter().enumerate() {
            interactions += &format!("u{user},i{item},{time}\n");
        }
    }
    // Too short to choose from: asked nothing.
    interactions += "short,i1,0\nshort,i2,1\n";
    std::fs::write(folder.join("interactions.csv"), interactions).expect("a file");
    let line = r#"{"user":"u0","history":["i0","i1"],"reference":"i2"}"#;
    std::fs::write(folder.join("histories.jsonl"), line).expect("a file");
    // The two tastes lie at right angles, and no two items are the same.
    let text: Vec<u8> = (0..NUM_ITEMS)
        .flat_map(|item| {
            let near = 0.01 * (item % (NUM_ITEMS / 2)) as f32;
            match item < NUM_ITEMS / 2 {
                true => [1.0, near],
                false => [near, 1.0],
            }
        })
        .flat_map(f32::to_le_bytes)
        .collect();
    let view = || {
        let shape = vec![NUM_ITEMS, 2];
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &text)
            .expect("a table")
    };
    let bytes = safetensors::serialize([("image", view()), ("text", view())], None).expect("bytes");
    std::fs::write(folder.join("features.safetensors"), bytes).expect("a file");
}

fn words(folder: &Path, seeds: &str, more: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = [
        "study",
        "assumptions",
        "--json",
        "--device",
        "flex",
        "--seeds",
    ]
    .map(String::from)
    .to_vec();
    words.extend([seeds.into(), "--out".into()]);
    words.push(folder.join("study").display().to_string());
    let features = folder.join("features.safetensors");
    let settings = [
        format!("data.folder={}", folder.display()),
        "data.history_length=0".into(),
        format!("ranking.features={}", features.display()),
        format!("retrieval.k={K}"),
        "ranking.model.embedding_width=4".into(),
        "ranking.training.batch_size=8".into(),
        "ranking.training.max_epochs=8".into(),
        "ranking.training.learning_rate=0.05".into(),
    ];
    for setting in settings
        .into_iter()
        .chain(more.iter().map(|s| s.to_string()))
    {
        words.extend(["--set".into(), setting]);
    }
    words
}

fn study(folder: &Path, seeds: &str) -> (Value, String) {
    let words = words(folder, seeds, &[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = ragar(&words);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = serde_json::from_str(&stdout(&output)).expect("a document");
    (report, stderr(&output))
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn the_table_holds_every_history_and_its_difference_from_ret() {
    let folder = tempfile::tempdir().expect("a folder");
    write_folder(folder.path());
    let (report, _) = study(folder.path(), "2");
    assert_eq!(
        report["users"], NUM_USERS as u64,
        "the short history is not asked"
    );
    let histories = report["histories"].as_array().expect("rows");
    let names: Vec<&str> = histories
        .iter()
        .map(|row| row["history"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["ret", "exp-ret", "random", "ret for another"]);
    for figure in ["recall", "ndcg"] {
        for row in histories {
            let of_seeds = row[format!("{figure}_of_seeds")].as_array().expect("seeds");
            assert_eq!(of_seeds.len(), 2);
            let mean = of_seeds.iter().map(number).sum::<f64>() / 2.0;
            assert!((number(&row[figure]["mean"]) - mean).abs() < 1e-9, "{row}");
            assert!((0.0..=1.0).contains(&mean), "{row}");
        }
        let differences = report["differences"].as_array().expect("rows");
        assert_eq!(differences.len(), 3);
        for (row, other) in differences.iter().zip(&histories[1..]) {
            let expected = number(&histories[0][figure]["mean"]) - number(&other[figure]["mean"]);
            assert!(
                (number(&row[figure]["mean"]) - expected).abs() < 1e-9,
                "{row}"
            );
        }
    }
    // `ret` trains on the user's own taste alone, `exp-ret` on what is left of it and the other one.
    let recall = |row: usize| number(&histories[row]["recall"]["mean"]);
    assert!(recall(0) > recall(1), "{} {}", recall(0), recall(1));
    let written = |name: &str| {
        std::fs::read_to_string(folder.path().join("study").join(name)).expect("a file")
    };
    assert!(written("assumptions.md").contains("| ret − random |"));
    assert!(written("assumptions.svg").contains("<svg"));
    assert_eq!(
        serde_json::from_str::<Value>(&written("assumptions.json")).expect("a document"),
        report
    );
}

#[test]
fn finished_trainings_are_not_repeated_and_come_to_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    write_folder(folder.path());
    let (whole, said) = study(folder.path(), "2");
    assert_eq!(said.matches("recall@10").count(), 8, "{said}");
    // As after an interruption in the second seed.
    let scores = folder.path().join("study/scores");
    for name in ["random-seed-1.json", "ret-for-another-seed-1.json"] {
        std::fs::remove_file(scores.join(name)).expect("a file to remove");
    }
    let (again, said) = study(folder.path(), "2");
    assert_eq!(said.matches("recall@10").count(), 2, "{said}");
    assert_eq!(again, whole);

    let changed = words(folder.path(), "2", &["ranking.training.max_epochs=3"]);
    let changed: Vec<&str> = changed.iter().map(String::as_str).collect();
    refuses(
        &changed,
        1,
        &["ret-seed-0.json", "another configuration", "--out"],
    );
    std::fs::write(scores.join("ret-seed-0.json"), "{\"configuration\":").expect("a file");
    let same = words(folder.path(), "2", &[]);
    let same: Vec<&str> = same.iter().map(String::as_str).collect();
    refuses(&same, 1, &["ret-seed-0.json", "remove it"]);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    write_folder(folder.path());
    for (seeds, more, expected) in [
        ("0", None, "--seeds must be at least 1"),
        (
            "1",
            Some("retrieval.k=3"),
            "nobody has more than 2 k = 6 items",
        ),
    ] {
        let words = words(folder.path(), seeds, more.as_slice());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refuses(&words, 1, &[expected]);
        assert!(!folder.path().join("study").exists(), "{expected}");
    }
}
