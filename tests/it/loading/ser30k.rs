//! SER30K: themes as folders, annotations in either place.

use std::collections::BTreeSet;

use ragar::data::loading::ser30k::{Ser30kOptions, load};
use serde_json::{Value, json};

use super::{Bench, assert_refused, history, read};

const THEMES: [&str; 4] = ["01-panda-bear", "02-cat", "kitty_lee", "44"];

fn entries() -> Vec<Value> {
    let mut entries = Vec::new();
    for (number, theme) in THEMES.into_iter().enumerate() {
        for sticker in 0..6 {
            entries.push(json!({
                "topic": theme, "file_name": format!("sticker_{sticker}.png"),
                "text": if sticker == 0 { "Good  morning" } else { "" },
                "anno1": 1, "anno2": 2, "anno3": 1, "anno": 1 + (number + sticker) % 7,
            }));
        }
    }
    entries
}

fn pictures(bench: &Bench) {
    for entry in entries() {
        let text = |key: &str| entry[key].as_str().expect("a text").to_string();
        bench.picture(&format!(
            "ser/Images/{}/{}",
            text("topic"),
            text("file_name")
        ));
    }
}

fn annotations(bench: &Bench, name: &str, entries: &[Value]) {
    let text = json!({ "annotations": entries }).to_string();
    bench.write(&format!("ser/Annotations/{name}"), text);
}

fn options(bench: &Bench) -> Ser30kOptions {
    Ser30kOptions {
        source: bench.path("ser"),
        num_users: 50,
        load: history(8),
        ..Ser30kOptions::default()
    }
}

#[test]
fn two_themes_make_a_history_and_a_third_the_reference() {
    let bench = Bench::new();
    pictures(&bench);
    annotations(&bench, "all_annos.json", &entries());
    let report = load(&options(&bench), &bench.out()).expect("loads");
    let data = bench.data();
    assert_eq!((data.catalogue.len(), data.histories.len()), (24, 50));
    assert_eq!(
        data.catalogue[0].text,
        "sticker of panda bear, saying \"Good morning\""
            .replace("Good morning", "Good  morning")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    );
    assert_eq!(
        data.catalogue[6].text,
        "sticker of cat, saying \"Good morning\""
    );
    assert_eq!(data.catalogue[19].text, "sticker of 44");
    let theme = |item: usize| {
        data.catalogue[item]
            .id
            .split('/')
            .next()
            .expect("a theme")
            .to_string()
    };
    for history in &data.histories {
        let themes: BTreeSet<String> = history.history.iter().map(|&item| theme(item)).collect();
        assert_eq!(themes.len(), 2, "{history:?}");
        assert!(!themes.contains(&theme(history.reference)));
        let different: BTreeSet<usize> = history.history.iter().copied().collect();
        assert_eq!(different.len(), 8);
    }
    assert_eq!(data.interactions.len(), 400);
    assert_eq!(report.pictures.copied, 24);
    let table = read(&bench.out().join("items.csv"));
    assert!(table.starts_with("item_id,image,text,theme,emotion\n"));
    assert!(
        table.contains("02-cat/sticker_0.png") && table.contains(",02-cat,2\n"),
        "{table}"
    );
    // The same seed invents the same users.
    let before = read(&bench.out().join("histories.jsonl"));
    load(&options(&bench), &bench.out()).expect("loads again");
    assert_eq!(read(&bench.out().join("histories.jsonl")), before);
}

#[test]
fn annotations_are_found_in_each_place() {
    for folder in ["", "image-level/"] {
        let bench = Bench::new();
        pictures(&bench);
        let entries = entries();
        annotations(&bench, &format!("{folder}train.json"), &entries[..14]);
        annotations(&bench, &format!("{folder}val.json"), &entries[14..16]);
        annotations(&bench, &format!("{folder}test.json"), &entries[16..]);
        let report = load(&options(&bench), &bench.out()).expect("loads");
        assert_eq!(report.num_items, 24, "{folder}");
    }
    let bench = Bench::new();
    pictures(&bench);
    bench.write("ser/Annotations/other.json", "{}");
    assert_refused(
        load(&options(&bench), &bench.out()),
        &["Annotations", "image-level"],
    );
}

#[test]
fn emotions_get_words() {
    let bench = Bench::new();
    pictures(&bench);
    annotations(&bench, "train.json", &entries());
    let mut named = options(&bench);
    named.emotions = [
        "anger",
        "disgust",
        "fear",
        "happiness",
        "neutral",
        "sadness",
        "surprise",
    ]
    .map(String::from)
    .into();
    load(&named, &bench.out()).expect("loads");
    assert!(bench.data().catalogue[1].text.ends_with(", disgust"));
    named.emotions.truncate(3);
    assert_refused(
        load(&named, &bench.out()),
        &["train.json, row 4, anno", "label 4", "--emotions"],
    );
    // Names in the file itself.
    let document = json!({
        "categories": [{"id": 1, "name": "Happiness"}], "annotations": entries(),
    });
    bench.write("ser/Annotations/train.json", document.to_string());
    load(&options(&bench), &bench.out()).expect("loads");
    assert!(bench.data().catalogue[0].text.ends_with(", happiness"));
}

#[test]
fn faults_are_named_with_their_entry() {
    let spoilt: [(Value, &[&str]); 6] = [
        (
            json!({"topic": "02-cat", "anno": 1}),
            &["row 25, file_name"],
        ),
        (
            json!({"topic": "..", "file_name": "../secret.png", "anno": 1}),
            &["row 25", "leads out of"],
        ),
        (
            json!({"topic": "/etc", "file_name": "passwd", "anno": 1}),
            &["row 25", "leads out of"],
        ),
        (
            json!({"topic": "02-cat", "file_name": "sticker_9.png", "anno": 0}),
            &["row 25, anno"],
        ),
        (
            json!({"topic": "02-cat", "file_name": "sticker_1.png", "anno": 1}),
            &["row 25", "twice"],
        ),
        (json!(7), &["row 25, topic"]),
    ];
    for (entry, words) in spoilt {
        let bench = Bench::new();
        pictures(&bench);
        bench.picture("secret.png");
        let mut all = entries();
        all.push(entry);
        annotations(&bench, "train.json", &all);
        assert_refused(load(&options(&bench), &bench.out()), words);
        let mut skipping = options(&bench);
        skipping.load.skip_bad = true;
        assert_eq!(
            load(&skipping, &bench.out()).expect("loads").num_bad_rows,
            1
        );
    }
    for (text, words) in [
        ("", "empty"),
        ("[]", "annotations"),
        ("{\"annotations\": [", "JSON"),
    ] {
        let bench = Bench::new();
        pictures(&bench);
        bench.write("ser/Annotations/train.json", text);
        assert_refused(load(&options(&bench), &bench.out()), &["train.json", words]);
    }
}

#[test]
fn what_cannot_make_a_history_is_said() {
    let bench = Bench::new();
    pictures(&bench);
    annotations(&bench, "train.json", &entries());
    let mut long = options(&bench);
    long.load.selection.history_length = 13;
    assert_refused(
        load(&long, &bench.out()),
        &["history of 13", "hold 12", "--history"],
    );
    // Stickers without pictures are left out.
    for sticker in 0..6 {
        let path = bench.path(&format!("ser/Images/02-cat/sticker_{sticker}.png"));
        std::fs::remove_file(path).expect("removed");
    }
    let report = load(&options(&bench), &bench.out()).expect("loads");
    assert_eq!(
        (report.num_items, report.left_out.items_without_picture),
        (18, 6)
    );
    std::fs::remove_dir_all(bench.path("ser/Images")).expect("removed");
    assert_refused(
        load(&options(&bench), &bench.path("new")),
        &["Images", "no such folder"],
    );
}

#[cfg(unix)]
#[test]
fn links_out_of_the_pictures_are_refused() {
    let bench = Bench::new();
    pictures(&bench);
    annotations(&bench, "train.json", &entries());
    bench.picture("secret.png");
    let link = bench.path("ser/Images/02-cat/sticker_2.png");
    std::fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink(bench.path("secret.png"), &link).expect("a link");
    assert_refused(
        load(&options(&bench), &bench.out()),
        &["row 9, file_name", "link"],
    );
}
