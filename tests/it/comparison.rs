//! `ragar eval` without a trained RAGAR: methods, files, cache, failures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use assert_cmd::Command;
use model_import::write_tensors;
use ragar::app::comparison::{Failure, MethodResult, Results};
use ragar::app::report::RowKind;
use ragar::data::history::Split;
use ragar::data::stickers::Stickers;
use ragar::evaluation::interval::BootstrapOptions;
use ragar::evaluation::metric::{Metric, Scores};
use serde_json::Value;

const SMALLEST: &[&str] = &[
    "data.train_users=2",
    "evaluation.users=3",
    "evaluation.seeds=2",
    "evaluation.intervals.num_resamples=50",
    "models.ranking=nowhere",
    "inference.num_steps=2",
    "inference.images_per_batch=2",
    "keywords.pool.num_kept=2",
    "baselines.pmg.training.steps=2",
    "baselines.pmg.items_per_user=1",
    "baselines.pmg.balances=[0.5, 1.0]",
    "baselines.textual_inversion.training.steps=2",
];

fn eval(folder: &Path, methods: &str, further: &[&str]) -> Value {
    let out = folder.join("out");
    let out = out.to_str().expect("a path");
    ragar(
        folder,
        &["eval", "--methods", methods, "--out", out],
        further,
    )
}

fn ragar(folder: &Path, words: &[&str], further: &[&str]) -> Value {
    let mut command = Command::cargo_bin("ragar").expect("the program is built");
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(words).args(["--quiet", "--json"]);
    command.arg("--run").arg(folder.join("nothing"));
    let store = format!("features.store={}", folder.join("features").display());
    let values = SMALLEST.iter().chain(further).copied();
    for value in values.chain([store.as_str()]) {
        command.args(["--set", value]);
    }
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"))
}

fn pictures(folder: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut found = Vec::new();
    for method in std::fs::read_dir(folder.join("out/images")).expect("images") {
        for picture in std::fs::read_dir(method.expect("a folder").path()).expect("pictures") {
            let path = picture.expect("a picture").path();
            let changed = path.metadata().and_then(|data| data.modified());
            found.push((path, changed.expect("a time")));
        }
    }
    found.sort();
    found
}

#[test]
fn methods_are_drawn_judged_written_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let all = "reference,history,neighbour,keywords,sd,textual-inversion,pmg";
    let results = eval(folder, all, &[]);
    let out = folder.join("out");
    for file in [
        "report.html",
        "report.json",
        "table.md",
        "table.csv",
        "table.tex",
        "scores.json",
        "scores.csv",
        "paired.csv",
        "config.toml",
        "methods/pmg/metrics.jsonl",
    ] {
        let size = std::fs::metadata(out.join(file)).map(|data| data.len());
        assert!(size.is_ok_and(|size| size > 0), "{file}");
    }
    let methods = results["methods"].as_array().expect("methods");
    let names: Vec<&str> = methods.iter().filter_map(|m| m["name"].as_str()).collect();
    assert_eq!(names.join(","), format!("target,{all}"));
    for method in methods {
        let scores = method["scores"].as_array().expect("scores");
        assert_eq!(scores.len(), 3, "{method}");
        assert_eq!(method["failures"], serde_json::json!([]));
        for metric in [
            "CPIS",
            "CS",
            "CIS",
            "SSIM history",
            "style@1",
            "both@1",
            "SSIM target",
        ] {
            assert!(scores[0][metric].is_number(), "{metric}: {method}");
        }
        assert!(scores[0].get("ΔR").is_none(), "no ranking model, no rank");
        assert!(method["frechet"].is_number());
    }
    let reference = &methods[1]["scores"][0];
    assert!((reference["CIS"].as_f64().expect("CIS") - 100.0).abs() < 1e-2);
    assert!((reference["SSIM reference"].as_f64().expect("SSIM") - 100.0).abs() < 1e-6);
    let target = &methods[0]["scores"][0];
    assert!((target["SSIM target"].as_f64().expect("SSIM") - 100.0).abs() < 1e-6);
    let differences = results["differences"].as_array().expect("differences");
    assert!(
        differences.iter().all(|d| d["first"] == "PMG"),
        "the last that competes"
    );
    let page = std::fs::read_to_string(out.join("report.html")).expect("a page");
    for word in [
        "Textual Inversion",
        "best of 3 users",
        "worst of 3 users",
        "CLIP-FID",
    ] {
        assert!(page.contains(word), "{word}");
    }

    // Again, with one picture lost and one damaged: those two are drawn, to the same numbers.
    let before = pictures(folder);
    assert_eq!(
        before.len(),
        4 * 3 * 2,
        "methods, users, seeds; floors are no drawings"
    );
    std::fs::remove_file(&before[0].0).expect("removed");
    std::fs::write(&before[9].0, b"half a pic").expect("damaged");
    let again = eval(folder, all, &[]);
    assert_eq!(again, results, "kept and drawn anew are one");
    let after = pictures(folder);
    let changed: Vec<usize> = (0..before.len())
        .filter(|at| before[*at] != after[*at])
        .collect();
    assert_eq!(changed, [0, 9], "nothing else was drawn");

    // A perceptual distance on request.
    let lpips = crate::lpips::folder("lpips-squeeze", ragar::networks::lpips::Net::Squeeze);
    let lpips = format!("evaluation.lpips={}", lpips.path().display());
    let seen = eval(folder, "reference,keywords", &[&lpips]);
    let methods = seen["methods"].as_array().expect("methods");
    let distance = |method: usize, metric: &str| methods[method]["scores"][0][metric].as_f64();
    assert_eq!(
        distance(1, "LPIPS reference"),
        Some(0.0),
        "the reference from itself"
    );
    assert_eq!(
        distance(0, "LPIPS target"),
        Some(0.0),
        "the target from itself"
    );
    for metric in ["LPIPS history", "LPIPS reference", "LPIPS target"] {
        assert!(distance(2, metric) > Some(0.0), "{metric}");
    }

    // The ranking model on drawn pictures, from what is kept.
    let study = folder.join("study");
    let words = [
        "study",
        "augmentation",
        "--methods",
        "keywords,sd",
        "--seeds",
        "2",
        "--drawn",
        out.to_str().expect("a path"),
        "--out",
        study.to_str().expect("a path"),
    ];
    let study = ragar(folder, &words, &["ranking.training.max_epochs=1"]);
    let rows = study["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["pictures"].as_str())
        .collect();
    assert_eq!(names, ["originals", "Keywords", "Stable Diffusion"]);
    let replaced = study["replaced"].as_u64().expect("a number");
    assert!((1..=3).contains(&replaced), "{replaced}");
    for row in rows {
        let drawn_for = row["references"]["ndcg"]["count"].as_u64();
        assert!(
            drawn_for >= Some(replaced),
            "users drawn for: {drawn_for:?}"
        );
        assert_eq!(
            row["test_items"]["recall_of_seeds"]
                .as_array()
                .map(Vec::len),
            Some(2)
        );
    }
    assert!(rows[0]["test_items"]["ndcg_gain"].is_null());
    assert!(rows[1]["test_items"]["ndcg_gain"]["p_value"].is_number());
    assert_ne!(
        rows[0]["test_items"], rows[1]["test_items"],
        "the pictures show"
    );
}

#[test]
fn who_names_glyph_and_style_is_said_and_can_be_chosen() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let judged = |glyphs: &str, styles: &str| -> (Value, String) {
        let places = [
            format!("models.glyph_recogniser={glyphs}"),
            format!("models.style_recogniser={styles}"),
        ];
        let places = [places[0].as_str(), places[1].as_str()];
        let results = eval(folder, "reference,history", &places);
        let page = std::fs::read_to_string(folder.join("out/table.md")).expect("a table");
        (results, page)
    };
    let scores = |results: &Value, method: usize, metric: &str| -> Vec<f64> {
        let scores = results["methods"][method]["scores"].as_array();
        let scores = scores.expect("scores").iter();
        scores.filter_map(|s| s[metric].as_f64()).collect()
    };
    // The shipped ones know the references' own glyphs, and see that a history's item is another one, and that a
    // reference is not in the style that is wanted.
    let shipped = "assets/models/tiny/recogniser";
    let (known, page) = judged(&format!("{shipped}/glyph"), &format!("{shipped}/style"));
    for said in [
        "a network trained on training pairs names the target's style",
        "a network trained on them names its glyph",
    ] {
        assert!(page.contains(said), "{page}");
    }
    assert_eq!(scores(&known, 1, "glyph@1"), [1.0; 3]);
    assert_eq!(scores(&known, 2, "glyph@1"), [0.0; 3]);
    assert_eq!(scores(&known, 1, "style@1"), [0.0; 3]);
    // Without them, or where the one of glyphs was taught others, CLIP names both.
    let (nearest, page) = judged("", "");
    assert!(page.contains("the nearest real stickers"), "{page}");
    assert!(page.contains("a classifier trained"), "{page}");
    let (other, _) = judged("tests/golden/recogniser/model", "");
    assert_eq!(other, nearest);

    // One that cannot be read, or that names something else, is no reason to take another judge in silence.
    let broken = folder.join("broken");
    std::fs::create_dir(&broken).expect("a folder");
    std::fs::write(broken.join("config.json"), "{\"model_type\": \"clip\"}").expect("a file");
    let refused = |place: &str| -> String {
        let mut command = Command::cargo_bin("ragar").expect("the program is built");
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.args(["eval", "--methods", "reference", "--quiet", "--run"]);
        command.arg(folder.join("nothing"));
        for value in SMALLEST.iter().copied().chain([place]) {
            command.args(["--set", value]);
        }
        let output = command.output().expect("the program starts");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&format!("models.glyph_recogniser={}", broken.display()));
    assert!(
        said.contains("models.glyph_recogniser") && said.contains("ragar-recogniser"),
        "{said}"
    );
    let said = refused(&format!("models.style_recogniser={shipped}/glyph"));
    assert!(
        said.contains("models.style_recogniser") && said.contains("names glyphs, not styles"),
        "{said}"
    );
}

/// The references of all users are the whole catalogue, those of their histories are not: a distance of nothing, and one.
#[test]
fn a_named_inception_gives_the_frechet_distance_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut items = "item_id,image,text\n".to_string();
    for (item, name) in ["flat-1f436", "3d-1f436", "cartoon-1f695"]
        .iter()
        .enumerate()
    {
        let image = format!("assets/stickers/images/{name}.png");
        std::fs::copy(image, folder.join(format!("{item}.png"))).expect("a picture");
        items += &format!("{item},{item}.png,picture {item}\n");
    }
    let (mut interactions, mut histories) =
        ("user_id,item_id,timestamp\n".to_string(), String::new());
    for (user, history, reference) in [("a", 1, 0), ("b", 0, 1), ("c", 1, 2)] {
        interactions += &format!("{user},{history},1\n");
        histories += &format!(
            "{{\"user\":\"{user}\",\"history\":[\"{history}\"],\"reference\":\"{reference}\",\"split\":\"test\"}}\n"
        );
    }
    for (name, text) in [
        ("items.csv", items),
        ("interactions.csv", interactions),
        ("histories.jsonl", histories),
    ] {
        std::fs::write(folder.join(name), text).expect("a file");
    }
    let weights = folder.join("inception.safetensors");
    write_tensors(&weights, &crate::inception::weights(), &BTreeMap::new()).expect("weights");
    let data = format!("data.folder={}", folder.display());
    let network = format!("evaluation.inception={}", weights.display());
    let further = [
        &*data,
        &*network,
        "data.train_users=0",
        "data.history_length=0",
        "evaluation.seeds=1",
    ];
    let results = eval(folder, "reference,history", &further);
    let methods = results["methods"].as_array().expect("methods");
    let distance = |name: &str| -> f64 {
        let method = methods.iter().find(|method| method["name"] == name);
        method.expect("a method")["fid"]
            .as_f64()
            .expect("a distance")
    };
    let (whole, part) = (distance("reference"), distance("history"));
    assert!(whole < 1e-2 && part > 100.0, "{whole} {part}");
    let table = std::fs::read_to_string(folder.join("out/table.md")).expect("a table");
    assert!(table.contains("| FID"), "{table}");
}

#[test]
fn a_failed_user_is_counted_and_not_averaged() {
    let method = |name: &str, scores: Vec<Scores>, failures: Vec<Failure>| MethodResult {
        name: name.into(),
        label: name.to_uppercase(),
        kind: RowKind::Method,
        num_pictures: scores.iter().filter(|scores| !scores.is_empty()).count(),
        scores,
        failures,
        frechet: None,
        fid: None,
    };
    let style = |value: f64| Scores::from([(Metric::Style, value)]);
    let failure = Failure {
        user: "b".into(),
        seed: 0,
        reason: "no numbers".into(),
    };
    let mut results = Results {
        users: ["a", "b", "c"].map(String::from).to_vec(),
        references: ["x", "y", "z"].map(String::from).to_vec(),
        groups: vec![0, 1, 2],
        named_by: String::new(),
        seeds: vec![0],
        methods: vec![
            method("sd", vec![style(0.0), style(0.0), style(1.0)], vec![]),
            method(
                "ragar",
                vec![style(1.0), Scores::new(), style(1.0)],
                vec![failure],
            ),
        ],
        differences: vec![],
    };
    let options = BootstrapOptions::default();
    results.compare(&options);
    let difference = &results.differences[0];
    assert_eq!(
        difference.compared.difference.count, 2,
        "only users that both drew for"
    );
    assert!((difference.compared.difference.mean - 0.5).abs() < 1e-12);
    let tables = results.tables(&options);
    let ragar = &tables[0].rows[1].scores["style@1"];
    assert_eq!((ragar.mean, ragar.count), (1.0, 2));
    assert!(!tables[0].note.contains("together"), "{}", tables[0].note);
    results.groups = vec![0, 0, 1];
    let grouped = results.tables(&options);
    assert!(grouped[0].note.contains("2 groups"), "{}", grouped[0].note);
    let sets = tables
        .iter()
        .find(|table| table.title == "Pictures")
        .expect("sets");
    assert_eq!(sets.rows[1].scores["failed"].mean, 1.0);
    assert_eq!(sets.rows[1].scores["pictures"].mean, 2.0);

    // Nobody at all: tables without means, and no comparison.
    let mut empty = Results {
        methods: vec![
            method("sd", vec![], vec![]),
            method("ragar", vec![], vec![]),
        ],
        users: vec![],
        references: vec![],
        groups: vec![],
        ..results
    };
    empty.differences.clear();
    empty.compare(&options);
    assert!(empty.differences.is_empty());
    assert_eq!(empty.tables(&options).len(), 1, "pictures alone");
}

#[test]
fn every_method_is_told_the_same_words_of_a_reference() {
    let folder = tempfile::tempdir().expect("a folder");
    let told = |parts: usize| {
        let out = folder.path().join(parts.to_string());
        let parts = format!("preparation.reference_parts={parts}");
        // Keywords then draw the reference's words alone, and so does PMG's balance of 0.
        let alone = [
            parts.as_str(),
            "preparation.global_prompt={reference}",
            "baselines.pmg.balances=[0.0]",
            "inference.candidates=1",
        ];
        let results = eval(&out, "keywords,pmg,textual-inversion", &alone);
        let methods = results["methods"].as_array().expect("methods");
        [1, 2, 3].map(|place| methods[place]["scores"].clone())
    };
    let (name, all) = (told(1), told(0));
    for [keywords, pmg, _] in [&name, &all] {
        assert_eq!(keywords, pmg);
    }
    for (name, all) in name.iter().zip(&all) {
        assert_ne!(name, all, "fewer words, another picture");
    }
}

#[test]
fn the_ceiling_is_told_the_right_answers_theme_and_competes_with_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stickers");
    let stickers = Stickers::open(&place).expect("stickers");
    let first = stickers.users(Split::Test).next().expect("a user");
    let right = &stickers.stickers[first.target.expect("a right answer")];
    let theme = format!("{} {}", right.style.name(), right.group);
    let run = |name: &str, methods: &str, prompt: &str| {
        let prompt = format!("preparation.global_prompt={prompt}");
        let further = ["evaluation.users=1", "inference.candidates=1", &prompt];
        eval(&folder.path().join(name), methods, &further)
    };
    let told = run("told", "answer,keywords", "{keywords}, {reference}");
    let by_hand = run("by-hand", "keywords", &format!("{theme}, {{reference}}"));
    let scores = |results: &Value, place: usize| results["methods"][place]["scores"].clone();
    assert_eq!(scores(&told, 1), scores(&by_hand, 1), "{theme}");
    assert_ne!(scores(&told, 1), scores(&told, 2));
    assert_eq!(told["methods"][1]["kind"], told["methods"][0]["kind"]);
    let differences = told["differences"].as_array().expect("differences");
    assert!(differences.iter().all(|d| d["first"] == "Keywords"));

    // A folder whose right answers nobody knows.
    let plain = folder.path().join("plain");
    std::fs::create_dir(&plain).expect("a folder");
    for file in ["items.csv", "interactions.csv", "histories.jsonl"] {
        std::fs::copy(place.join(file), plain.join(file)).expect("copied");
    }
    std::fs::create_dir(plain.join("images")).expect("a folder");
    for picture in std::fs::read_dir(place.join("images")).expect("pictures") {
        let picture = picture.expect("a picture");
        let copy = plain.join("images").join(picture.file_name());
        std::fs::copy(picture.path(), copy).expect("copied");
    }
    let mut command = Command::cargo_bin("ragar").expect("the program is built");
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["eval", "--methods", "answer", "--quiet", "--out"]);
    command.arg(folder.path().join("none")).arg("--run");
    command.arg(folder.path().join("nothing"));
    let store = folder.path().join("told/features");
    let places = [
        format!("data.folder={}", plain.display()),
        format!("features.store={}", store.display()),
        "evaluation.users=1".into(),
        "models.ranking=nowhere".into(),
        "inference.candidates=1".into(),
    ];
    for value in &places {
        command.args(["--set", value]);
    }
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("answer") && said.contains("plain"), "{said}");
}
