//! The command line as users meet it: exit codes, messages, machine-readable output.

use std::process::Output;

use assert_cmd::Command;

pub fn ragar(arguments: &[&str]) -> Output {
    Command::cargo_bin("ragar")
        .expect("the program is built")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("RUST_LOG")
        .args(arguments)
        .output()
        .expect("the program starts")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The program ends with `code` and says each of `words` on standard error.
#[track_caller]
pub fn refuses(arguments: &[&str], code: i32, words: &[&str]) {
    let output = ragar(arguments);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: no `{word}` in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn version_lists_the_compiled_backends() {
    let output = ragar(&["--version"]);
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(text.contains("backends: "), "{text}");
    for backend in ragar::app::backend::BackendName::ALL {
        assert_eq!(
            text.contains(backend.word()),
            backend.is_compiled(),
            "{text}"
        );
    }
}

#[test]
fn help_is_not_an_error_and_nothing_is_a_usage_error() {
    assert!(ragar(&["--help"]).status.success());
    refuses(&[], 2, &["Usage", "devices"]);
    refuses(&["dance"], 2, &["dance"]);
    refuses(&["devices", "--unknown"], 2, &["--unknown"]);
}

#[test]
fn devices_are_listed_for_people_and_machines() {
    let people = ragar(&["devices"]);
    assert!(people.status.success(), "{}", stderr(&people));
    let machines = ragar(&["devices", "--json"]);
    let lines: serde_json::Value = serde_json::from_str(&stdout(&machines)).expect("JSON");
    let lines = lines.as_array().expect("a list");
    assert!(lines.len() >= 5);
    for line in lines {
        assert!(line["device"].is_string() && line["usable"].is_boolean());
        assert!(stdout(&people).contains(line["detail"].as_str().expect("a detail")));
    }
}

#[test]
fn configuration_mistakes_are_usage_errors() {
    refuses(
        &["devices", "--config", "no/such.toml"],
        2,
        &["error: no/such.toml"],
    );
    refuses(
        &["devices", "--set", "data.foldr=x"],
        2,
        &["--set data.foldr=x", "did you mean `data.folder`?"],
    );
    refuses(&["devices", "--set", "nonsense"], 2, &["section.key=value"]);
}

/// Before anything is captioned or drawn.
#[test]
fn a_sampler_that_cannot_draw_as_asked_is_a_usage_error() {
    for (section, key, words) in [
        ("inference", "strength=0.5", "ddim"),
        ("reflection", "strength=0.5", "ddim"),
        ("reflection", "num_steps=5000", "sampling steps"),
    ] {
        let (sampler, key) = (
            format!("{section}.scheduler=pndm"),
            format!("{section}.{key}"),
        );
        let store = tempfile::tempdir().expect("a folder");
        let out = store.path().join("run");
        let arguments = [
            "train",
            "--config",
            "configs/tiny.toml",
            "--set",
            &sampler,
            "--set",
            &key,
            "--out",
            out.to_str().expect("a path"),
        ];
        refuses(&arguments, 2, &[section, words]);
        assert!(!out.exists(), "{section}");
    }
}

#[test]
fn models_are_described_from_their_headers() {
    let clip = ragar(&["model", "inspect", "tests/golden/clip/model", "--json"]);
    assert!(clip.status.success(), "{}", stderr(&clip));
    let report: serde_json::Value = serde_json::from_str(&stdout(&clip)).expect("JSON");
    assert_eq!(report["architecture"], "CLIPModel");
    assert_eq!(
        report["components"][0]["files"].as_array().map(Vec::len),
        Some(1)
    );
    assert!(report["parameters"].as_u64() > Some(1000));

    let pipeline = ragar(&["model", "inspect", "tests/golden/pipeline/model"]);
    let text = stdout(&pipeline);
    for word in [
        "StableDiffusionPipeline",
        "unet",
        "vae",
        "text_encoder",
        "F32",
    ] {
        assert!(text.contains(word), "no {word} in {text}");
    }

    let adapter = ragar(&[
        "model",
        "inspect",
        "tests/golden/llama-lora/adapter",
        "--tensors",
    ]);
    assert!(stdout(&adapter).contains("lora_A"), "{}", stdout(&adapter));
}

#[test]
fn broken_models_are_refused_with_the_reason() {
    refuses(
        &["model", "inspect", "no/such/folder"],
        1,
        &["no/such/folder"],
    );
    refuses(&["model", "inspect", "src"], 1, &["no checkpoint here"]);
    let folder = tempfile::tempdir().expect("a folder");
    let whole = std::fs::read("tests/golden/clip/model/model.safetensors").expect("a golden file");
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("half a file");
    let path = path.to_str().expect("a path");
    refuses(
        &["model", "inspect", path],
        1,
        &["model.safetensors", "truncated"],
    );
    std::fs::write(
        path,
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    )
    .expect("a pointer");
    refuses(&["model", "inspect", path], 1, &["git-LFS pointer"]);
}

#[test]
fn stickers_without_packages_say_how_to_bring_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    let out = format!("{path}/out");
    refuses(
        &["data", "stickers", "--packages", path, "--out", &out],
        1,
        &["npm pack"],
    );
    refuses(
        &[
            "data",
            "stickers",
            "--packages",
            path,
            "--out",
            &out,
            "--set",
            "stickers.held_out=2",
        ],
        2,
        &["[stickers]", "held_out"],
    );
}

#[test]
fn the_shipped_data_are_sound() {
    let output = ragar(&["data", "check", "assets/stickers", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(report["num_errors"], 0);
    assert!(report["num_items"].as_u64() > Some(1000));
}

#[test]
fn broken_data_are_named_with_file_and_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    write(
        "items.csv",
        "item_id,image,text\na,images/a.png,an apple\na,../b.png,a pear\n",
    );
    write("interactions.csv", "user_id,item_id\nu,a\n");
    write(
        "histories.jsonl",
        "{\"user\":\"u\",\"history\":[],\"reference\":\"zebra\"}\n",
    );
    let path = folder.path().to_str().expect("a path");
    let output = ragar(&["data", "check", path]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    for word in [
        "items.csv, row 2",
        "items.csv, row 3",
        "images/a.png",
        "interactions.csv, timestamp",
        "histories.jsonl, row 1",
    ] {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    assert!(stderr(&output).contains("cannot be used"));
}

#[test]
fn commands_without_their_input_say_what_makes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = format!("{}/nothing", folder.path().display());
    refuses(
        &["generate", "--run", &missing],
        2,
        &["nothing/config.toml", "cannot read"],
    );
    refuses(
        &["prepare", "--set", &format!("models.clip={missing}")],
        1,
        &["models.clip", "ragar pretrain clip"],
    );
    refuses(
        &["rank", "eval", "--device", "warp"],
        2,
        &["no device `warp`"],
    );
    refuses(
        &["prepare", "--set", &format!("data.folder={missing}")],
        1,
        &["nothing", "no such folder"],
    );
}

/// On a file system of two megabytes, made for this test alone where the system lets an ordinary process do so.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_that_names_the_file_and_leaves_no_half_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let in_namespace = |script: &str| {
        std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .env("DISK", folder.path())
            .env("RAGAR", assert_cmd::cargo::cargo_bin("ragar"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
    };
    let mount = "mount -t tmpfs -o size=2m tmpfs \"$DISK\"";
    if !in_namespace(mount).is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no file system can be mounted in a namespace of its own here");
        return;
    }
    let output = in_namespace(&format!(
        "{mount} && \"$RAGAR\" pretrain vae --out \"$DISK/run\" --set pretrain.vae.trainer.steps=1 \
         --set pretrain.vae.batch_size=1; code=$?; ls \"$DISK/run/checkpoints\"; exit $code"
    ))
    .expect("a shell");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains("run/checkpoints/step-1"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let left = stdout(&output);
    let whole = left.lines().filter(|name| !name.ends_with(".tmp")).count();
    assert_eq!(whole, 0, "a checkpoint that was not written whole: {left}");
}

#[test]
fn data_folders_are_made_and_used_from_the_command_line() {
    let bench = tempfile::tempdir().expect("a folder");
    let path = |name: &str| bench.path().join(name).display().to_string();
    let write = |name: &str, text: &str| {
        let file = bench.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, text).expect("a file");
    };
    write(
        "ml/movies.csv",
        "movieId,title,genres\n1,A,Drama\n2,B,War\n3,C,Comedy\n",
    );
    write(
        "ml/ratings.csv",
        "userId,movieId,rating,timestamp\n1,1,5,1\n1,2,4,2\n1,3,1,3\n",
    );
    write(
        "pog/item_data.txt",
        "a,1,//127.0.0.1:9/a.jpg,t\nb,1,//127.0.0.1:9/b.jpg,u\n",
    );
    write("pog/user_data.txt", "u,a;b,o\n");
    write("r/r.inter", "user_id:token\titem_id:token\nu\ta\nu\tb\n");
    write("clicks.csv", "user,item,title\nu,a,A\nu,b,B\n");
    let (ml, pog, recbole, table) = (path("ml"), path("pog"), path("r"), path("clicks.csv"));
    let blank = ["--without-picture", "blank"];
    let runs: [(&str, Vec<&str>); 4] = [
        (
            "movielens",
            [&["data", "movielens", &ml, "--min-rating", "2"], &blank[..]].concat(),
        ),
        (
            "recbole",
            [&["data", "recbole", &recbole], &blank[..]].concat(),
        ),
        (
            "table",
            [&["data", "table", &table, "--text", "title"], &blank[..]].concat(),
        ),
        ("pog", vec!["data", "pog", &pog]),
    ];
    for (name, arguments) in runs {
        let out = path(&format!("out-{name}"));
        let output =
            ragar(&[&arguments[..], &["--history", "1", "--out", &out, "--json"]].concat());
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let report: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        assert_eq!(report["num_histories"], 1, "{report}");
        if name != "pog" {
            let check = ragar(&["data", "check", &out]);
            assert!(check.status.success(), "{}", stdout(&check));
        }
    }
    // Nothing is asked of this machine itself, and nothing came.
    refuses(
        &["data", "pictures", &path("out-pog"), "--retries", "0"],
        1,
        &["not one picture"],
    );
    let ledger = bench.path().join("out-pog/pictures-failed.jsonl");
    assert!(
        std::fs::read_to_string(ledger)
            .expect("a ledger")
            .contains("private")
    );
    refuses(
        &["data", "movielens", &ml, "--out", &ml],
        1,
        &["would be replaced"],
    );
    refuses(&["data", "movielens", &ml], 2, &["--out"]);
    refuses(
        &["data", "table", &table, "--out", "x", "--user", "who"],
        2,
        &["--user", "user, item"],
    );
    refuses(
        &[
            "data",
            "table",
            &table,
            "--out",
            "x",
            "--histories",
            "first",
        ],
        2,
        &["first", "stretches"],
    );
    refuses(
        &["data", "pictures", &path("out-pog"), "--parallel", "0"],
        2,
        &["--parallel"],
    );
    refuses(
        &["data", "ser30k", &ml, "--out", &path("s")],
        1,
        &["Images"],
    );
}

#[test]
fn ranking_commands_say_what_they_cannot_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = format!("{}/nothing", folder.path().display());
    refuses(
        &["rank", "train", "--set", "ranking.model.kind=lightgcn"],
        2,
        &["lightgcn", "light-gcn"],
    );
    refuses(
        &["rank", "train", "--set", "ranking.training.test_share=1.5"],
        2,
        &["test_share", "below 1"],
    );
    refuses(
        &[
            "rank",
            "train",
            "--set",
            &format!("ranking.features={missing}"),
        ],
        1,
        &["ranking.features", "nothing"],
    );
    refuses(
        &[
            "rank",
            "score",
            "--model",
            &missing,
            "--user",
            "u0001",
            "README.md",
        ],
        1,
        &["no ranking model there", "ragar rank train"],
    );
}

/// A made-up catalogue with a feature file, every kind trained on it for an epoch, judged, and refused for pictures.
#[test]
fn every_kind_of_ranking_model_is_trained_judged_and_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("a file");
    };
    image::RgbImage::new(2, 2)
        .save(folder.path().join("none.png"))
        .expect("a picture");
    let mut items = "item_id,image,text\n".to_string();
    let mut interactions = "user_id,item_id,timestamp\n".to_string();
    let mut histories = String::new();
    for item in 0..12 {
        items += &format!("i{item},none.png,item {item}\n");
    }
    for user in 0..6 {
        let taken: Vec<String> = (0..7)
            .map(|n| format!("i{}", (user + n * 5) % 12))
            .collect();
        for (time, item) in taken.iter().enumerate() {
            interactions += &format!("u{user},{item},{time}\n");
        }
        histories += &format!(
            "{{\"user\":\"u{user}\",\"history\":[\"{}\"],\"reference\":\"{}\"}}\n",
            taken[..6].join("\",\""),
            taken[6]
        );
    }
    write("items.csv", &items);
    write("interactions.csv", &interactions);
    write("histories.jsonl", &histories);
    let values: Vec<u8> = (0..24u32)
        .flat_map(|n| ((n * 7 % 11) as f32 - 5.0).to_le_bytes())
        .collect();
    let view = |values| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![12, 2], values)
            .expect("a table")
    };
    let tables = [("image", view(&values)), ("text", view(&values))];
    let features = folder.path().join("features.safetensors");
    std::fs::write(
        &features,
        safetensors::serialize(tables, None).expect("bytes"),
    )
    .expect("a file");

    let set = |key: &str, value: &str| [String::from("--set"), format!("{key}={value}")];
    let mut common = Vec::new();
    common.extend(set("data.folder", folder.path().to_str().expect("a path")));
    common.extend(set("data.history_length", "0"));
    common.extend(set("ranking.features", features.to_str().expect("a path")));
    common.extend(set("ranking.training.batch_size", "8"));
    common.extend(set("ranking.model.embedding_width", "4"));
    common.push("--device=flex".into());
    let call = |words: &[&str]| {
        let mut words: Vec<&str> = words.to_vec();
        words.extend(common.iter().map(String::as_str));
        ragar(&words)
    };
    for kind in [
        "micro",
        "lattice",
        "light-gcn",
        "matrix-factorisation",
        "popularity",
    ] {
        let out = folder.path().join(kind);
        let out = out.to_str().expect("a path");
        let kind = format!("ranking.model.kind={kind}");
        let train = |epochs: &str, out: &str| {
            let epochs = format!("ranking.training.max_epochs={epochs}");
            call(&[
                "rank", "train", "--json", "--out", out, "--set", &kind, "--set", &epochs,
            ])
        };
        let trained = train("2", out);
        assert_eq!(trained.status.code(), Some(0), "{}", stderr(&trained));
        // The same command again goes on from its end: the same numbers.
        let again = train("2", out);
        assert_eq!(stdout(&again), stdout(&trained), "{kind}");
        let judged = call(&["rank", "eval", "--json", "--model", out]);
        assert_eq!(judged.status.code(), Some(0), "{}", stderr(&judged));
        let judged: serde_json::Value = serde_json::from_str(&stdout(&judged)).expect("a document");
        let trained: serde_json::Value =
            serde_json::from_str(&stdout(&trained)).expect("a document");
        for place in 0..3 {
            assert_eq!(
                judged["lists"][place]["recall"]["mean"], trained["test"][place]["recall"],
                "{kind}"
            );
        }
        let scored = call(&["rank", "score", "--model", out, "--user", "u1", "README.md"]);
        assert_eq!(scored.status.code(), Some(1));
        let message = stderr(&scored);
        assert!(
            message.contains("ranking.features") || message.contains("cannot judge a picture"),
            "{message}"
        );
    }
    // Whether a judge is right is known of stickers alone.
    let judged = call(&["study", "judge"]);
    let message = stderr(&judged);
    assert!(
        judged.status.code() == Some(1) && message.contains("ragar data stickers"),
        "{message}"
    );
    // A feature that is no number is refused with its table and item.
    let mut broken = values.clone();
    broken[5 * 8..5 * 8 + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let tables = [("image", view(&values)), ("text", view(&broken))];
    let bytes = safetensors::serialize(tables, None).expect("bytes");
    std::fs::write(&features, bytes).expect("a file");
    let elsewhere = folder.path().join("x");
    let elsewhere = elsewhere.to_str().expect("a path");
    let refused = call(&["rank", "train", "--out", elsewhere]);
    let message = stderr(&refused);
    assert!(
        message.contains("text features of item 5") && message.contains("not finite"),
        "{message}"
    );
    // A file that does not fit the catalogue is refused with both numbers.
    write("items.csv", &(items + "i12,none.png,one more\n"));
    let refused = call(&["rank", "train", "--out", elsewhere]);
    assert!(
        stderr(&refused).contains("13 items"),
        "{}",
        stderr(&refused)
    );
}
