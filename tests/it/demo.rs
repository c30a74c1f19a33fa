//! The whole method through the program, at the smallest budget that touches every part.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

/// Below `--quick`: a few users, one step, one epoch.
const SMALLEST: &[&str] = &[
    "data.train_users=2",
    "evaluation.users=3",
    "evaluation.shown=2",
    "evaluation.intervals.num_resamples=50",
    "ranking.training.max_epochs=1",
    "training.steps=2",
    "training.batch_size=1",
    "reflection.num_steps=1",
    "reflection.num_noises=1",
    "inference.num_steps=2",
];

fn ragar(store: &Path) -> Command {
    let mut command = Command::cargo_bin("ragar").expect("the program is built");
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["--quiet", "--set"]);
    command.arg(format!("features.store={}", store.display()));
    for value in SMALLEST {
        command.args(["--set", value]);
    }
    command
}

fn demo(out: &Path, store: &Path) -> Value {
    let output = ragar(store)
        .args(["demo", "--quick", "--json", "--out"])
        .arg(out)
        .output()
        .expect("the program starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

/// What must not depend on when and where the run was.
fn repeatable(report: &Value) -> Value {
    serde_json::json!({
        "tables": report["tables"],
        "charts": report["charts"],
        "users": report["users"],
    })
}

#[test]
fn the_demo_runs_whole_repeats_itself_and_can_be_used_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("features");
    let first = folder.path().join("first");
    let report = demo(&first, &store);

    let page = std::fs::read_to_string(first.join("report.html")).expect("a page");
    for word in [
        "Right answer",
        "RAGAR",
        "Stable Diffusion",
        "data:image/png",
        "<polyline",
    ] {
        assert!(page.contains(word), "{word}");
    }
    let saved: Value =
        serde_json::from_slice(&std::fs::read(first.join("report.json")).expect("report.json"))
            .expect("JSON");
    assert_eq!(saved, report, "printed and saved are one");
    let rows = report["tables"][0]["rows"].as_array().expect("rows");
    let row = |name: &str| {
        rows.iter()
            .find(|row| row["name"] == name)
            .unwrap_or_else(|| panic!("no row {name}"))
    };
    for name in ["RAGAR", "Stable Diffusion"] {
        for metric in ["style@1", "glyph@1", "both@1", "ΔR"] {
            let score = &row(name)["scores"][metric];
            for key in ["mean", "low", "high", "count"] {
                assert!(score[key].is_number(), "{name} {metric} {key}: {score}");
            }
        }
    }
    for kind in ["ceiling", "floor"] {
        assert!(rows.iter().any(|row| row["kind"] == kind), "no {kind}");
    }

    let again = demo(&folder.path().join("second"), &store);
    assert_eq!(
        repeatable(&again),
        repeatable(&report),
        "same seed, same numbers"
    );

    // The trained model stays usable: another item for the same user, twice the same picture.
    let run = first.join("train");
    let draw_with = |file: &str, reference: Option<&str>, settings: &[&str]| {
        let out = folder.path().join(file);
        let mut command = ragar(&store);
        command.args(["generate", "--run"]).arg(&run);
        command.arg("--out").arg(&out);
        if let Some(reference) = reference {
            command.args(["--reference", reference]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        let output = command.output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said, std::fs::read(out).ok())
    };
    let draw = |file: &str, reference: Option<&str>| draw_with(file, reference, &[]);
    let (code, said, picture) = draw("a.png", None);
    assert_eq!(code, Some(0), "{said}");
    assert!(picture.is_some());
    assert_eq!(draw("b.png", None).2, picture);
    let (code, said, other) = draw("c.png", Some("3d-1f354"));
    assert_eq!(code, Some(0), "{said}");
    assert_ne!(other, picture);
    // What the generator was told stands in the picture's file: of what was retrieved one theme, of the reference its name.
    let says = |picture: &Option<Vec<u8>>, prompt: &str| {
        let file = picture.as_deref().expect("a file");
        file.windows(prompt.len())
            .any(|text| text == prompt.as_bytes())
    };
    assert!(says(&other, "food, hamburger") && !says(&other, "fast, hungry"));
    let settings = ["keywords.prompt=history", "preparation.reference_parts=0"];
    let (code, said, whole) = draw_with("g.png", Some("3d-1f354"), &settings);
    assert_eq!(code, Some(0), "{said}");
    assert_ne!(whole, other);
    assert!(says(&whole, "hamburger, food, fast, hungry"));
    let (code, said, nothing) = draw("d.png", Some("3d-1f35"));
    assert_eq!((code, nothing), (Some(1), None));
    assert!(said.contains("did you mean"), "{said}");

    // Beginning with the reference's picture, the less strength the more of it is left.
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stickers/images");
    let own = image::open(images.join("3d-1f354.png")).expect("a picture");
    let distance = |strength: &str| -> f64 {
        let settings = [
            &format!("inference.strength={strength}"),
            "inference.num_steps=6",
        ];
        let (code, said, drawn) = draw_with("e.png", Some("3d-1f354"), &settings);
        assert_eq!(code, Some(0), "{said}");
        let drawn = image::load_from_memory(&drawn.expect("a file")).expect("a picture");
        let (drawn, own) = (drawn.to_rgb8(), own.to_rgb8());
        assert_eq!(drawn.dimensions(), own.dimensions());
        let pairs = drawn.iter().zip(own.iter());
        pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum()
    };
    let distances = ["1", "0.6", "0.2"].map(distance);
    assert!(distances.is_sorted_by(|a, b| a > b), "{distances:?}");
    let (code, said, nothing) = draw_with("f.png", None, &["inference.strength=0"]);
    assert_eq!((code, nothing), (Some(2), None));
    assert!(
        said.contains("inference") && said.contains("strength = 0"),
        "{said}"
    );

    // So does the ranking model: real pictures in the place of the user's reference, the best first.
    let user = report["users"][0]["user"].as_str().expect("a user");
    let user = user.trim_start_matches("User ");
    let output = ragar(&store)
        .args(["rank", "score", "--json", "--user", user, "--model"])
        .arg(first.join("rank"))
        .args(["flat-1f994.png", "3d-1f354.png", "flat-1f354.png"].map(|name| images.join(name)))
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let scored: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    let pictures = scored["pictures"].as_array().expect("pictures");
    assert_eq!(pictures.len(), 3);
    for pair in pictures.windows(2) {
        assert!(pair[0]["score"].as_f64() >= pair[1]["score"].as_f64());
        assert!(pair[0]["rank"].as_u64() <= pair[1]["rank"].as_u64());
    }

    a_killed_training_comes_out_the_same(folder.path(), &store, &first.join("rank"));
    studies_go_on_where_they_stopped(folder.path(), &store, &first.join("rank"));
}

/// SIGKILL in the middle: no handler runs, and still nothing is lost.
fn a_killed_training_comes_out_the_same(folder: &Path, store: &Path, rank: &Path) {
    let train = |out: &Path| {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("ragar"));
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.arg("train").arg("--out").arg(out);
        let place = format!("models.ranking={}", rank.display());
        let store = format!("features.store={}", store.display());
        let budget = [
            "training.steps=8",
            "training.save_every=1",
            "training.average_decay=0.5",
            "training.validation.every=4",
            "training.validation.users=2",
            place.as_str(),
            store.as_str(),
        ];
        for value in SMALLEST.iter().chain(&budget) {
            command.args(["--set", value]);
        }
        command.stderr(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null());
        command
    };
    let (whole, killed) = (folder.join("whole"), folder.join("killed"));
    assert!(train(&whole).status().expect("it starts").success());
    let mut process = train(&killed).spawn().expect("it starts");
    let lines = |run: &Path, file: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(run.join(file)).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let timeless = |mut line: Value| {
            let fields = line.as_object_mut().expect("an object");
            fields.retain(|key, _| !key.starts_with("seconds_"));
            line
        };
        lines.map(timeless).collect()
    };
    let begun = std::time::Instant::now();
    while lines(&killed, "metrics.jsonl").len() < 2 && begun.elapsed().as_secs() < 120 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    process.kill().expect("it runs");
    process.wait().expect("it ends");
    assert!(
        !killed.join("preference.safetensors").exists(),
        "killed on the way"
    );
    #[cfg(unix)]
    a_full_disk_is_said_and_loses_nothing(&train(&killed), &killed);
    assert!(train(&killed).status().expect("it starts").success());
    for log in ["metrics.jsonl", "validation.jsonl"] {
        assert_eq!(lines(&whole, log), lines(&killed, log), "{log}");
    }
    assert_eq!(lines(&whole, "metrics.jsonl").len(), 8);
    for file in [
        "preference.safetensors",
        "best.safetensors",
        "adapter/adapter_model.safetensors",
    ] {
        let bytes = |run: &Path| std::fs::read(run.join(file)).expect(file);
        assert_eq!(bytes(&whole), bytes(&killed), "{file}");
    }
    let pictures = std::fs::read_dir(whole.join("validation/step-000004")).expect("pictures");
    assert_eq!(pictures.count(), 2);
}

/// Runs `train` where no file may grow beyond 64 KiB, as on a disk that fills while a checkpoint is written.
#[cfg(unix)]
fn a_full_disk_is_said_and_loses_nothing(train: &std::process::Command, run: &Path) {
    let checkpoints = || -> Vec<String> {
        let folder = std::fs::read_dir(run.join("checkpoints")).expect("checkpoints");
        let names = folder.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let whole = |names: &[String]| -> Vec<String> {
        let names = names.iter().filter(|name| {
            let manifest = run.join("checkpoints").join(name).join("manifest.json");
            manifest.is_file()
        });
        names.cloned().collect()
    };
    let before = whole(&checkpoints());
    assert!(!before.is_empty(), "a checkpoint to keep");
    let mut limited = std::process::Command::new("bash");
    limited.current_dir(env!("CARGO_MANIFEST_DIR"));
    // The signal ignored, the write fails with an error as on a full disk.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    limited.arg("-c").arg(script).arg(train.get_program());
    let output = limited.args(train.get_args()).output().expect("bash");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("checkpoints"), "names the place: {said}");
    assert!(!said.contains("panicked"), "{said}");
    let after = checkpoints();
    for name in &before {
        assert!(after.contains(name), "{name} is gone: {after:?}");
    }
}

fn studies_go_on_where_they_stopped(folder: &Path, store: &Path, rank: &Path) {
    let place = format!("models.ranking={}", rank.display());
    let study = |arguments: &[&str], out: &Path| -> Value {
        let output = ragar(store)
            .args(["--set", &place, "study", "--json"])
            .args(arguments)
            .arg("--out")
            .arg(out)
            .output()
            .expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"))
    };
    let out = folder.join("gradient");
    let gradient = study(&["gradient", "--samples", "2", "--repeats", "2"], &out);
    assert_eq!(gradient["rows"].as_array().expect("rows").len(), 6);
    for row in gradient["rows"].as_array().expect("rows") {
        assert!(row["variance"].as_f64().expect("a number") > 0.0, "{row}");
        let signal = row["signal"].as_f64() > row["signal_error"].as_f64().map(|e| 2.0 * e);
        assert_eq!(row["steps_for_signal"].is_number(), signal, "{row}");
    }

    let judge: Value = {
        let output = ragar(store)
            .args(["--set", &place, "study", "--json", "judge", "--users", "6"])
            .args(["--model", rank.to_str().expect("a path")])
            .output()
            .expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"))
    };
    let figure = |name: &str| judge[0][name]["mean"].as_f64().expect("a number");
    assert_eq!(judge[0]["right"]["count"], 6);
    // The right answer is one of its glyph's drawings, and these are among all pictures.
    assert!(figure("best_picture") >= figure("best_style"), "{judge}");
    assert!(figure("best_style") >= figure("right"), "{judge}");
    assert!((0.0..=1.0).contains(&figure("above")), "{judge}");
    assert!(figure("first") <= figure("above"), "{judge}");

    let out = folder.join("ablation");
    let arguments = ["ablation", "--seeds", "1", "--only", "losses"];
    let ablation = study(&arguments, &out);
    let names: Vec<&str> = ablation["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["variant"].as_str().expect("a name"))
        .collect();
    let expected = [
        "untrained",
        "as configured",
        "without L_rank",
        "without L_cal",
        "without L_sem",
    ];
    assert_eq!(names, expected);
    let text = std::fs::read_to_string(out.join("ablation.md")).expect("a table");
    assert!(text.contains("| without L_cal |"), "{text}");
    // What is finished is not trained again.
    let scores = out.join("runs/without-l-cal/seed-0/scores.json");
    let time = |path: &Path| path.metadata().and_then(|m| m.modified()).expect("a time");
    let before = time(&scores);
    std::fs::remove_dir_all(out.join("runs/without-l-sem")).expect("removed");
    assert_eq!(study(&arguments, &out), ablation);
    assert_eq!(time(&scores), before);
}
