//! `ragar model fetch` against a hub of our own that drops connections, refuses, and sends what it should not.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use sha2::{Digest, Sha256};

use crate::cli::{stderr, stdout};
use crate::support::golden_dir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// What the hub does beside serving files.
#[derive(Default, Clone, Copy)]
struct Manners {
    /// Every answer of more than so many bytes ends after them.
    drops_after: Option<usize>,
    /// Refuses whoever has no token.
    gated: bool,
    /// Ignores where a download wants to go on, and sends everything.
    forgets_ranges: bool,
    /// Promises another digest than what it sends has.
    lies: bool,
    /// Lists a file that would leave the cache.
    escapes: bool,
}

#[derive(Default)]
struct Seen {
    /// Files asked for, once per request of their content.
    files: Vec<String>,
    dropped: usize,
}

struct Hub {
    address: String,
    seen: Arc<Mutex<Seen>>,
}

impl Hub {
    fn start(files: BTreeMap<String, Vec<u8>>, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (files, watched) = (Arc::new(files), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, seen) = (files.clone(), watched.clone());
                std::thread::spawn(move || answer(stream, &files, manners, &seen));
            }
        });
        Self { address, seen }
    }

    fn fetch(&self, home: &Path, arguments: &[&str]) -> Output {
        self.fetch_as(home, Some(TOKEN), arguments)
    }

    fn fetch_as(&self, home: &Path, token: Option<&str>, arguments: &[&str]) -> Output {
        let mut command = Command::cargo_bin("ragar").expect("the program is built");
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("HF_HOME", home)
            .env("HF_ENDPOINT", &self.address)
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_TOKEN")
            .args(["model", "fetch"])
            .args(arguments);
        if let Some(token) = token {
            command.env("HF_TOKEN", token);
        }
        command.output().expect("the program starts")
    }
}

/// One request and its answer.
fn answer(
    stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    manners: Manners,
    seen: &Mutex<Seen>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_string());
    }
    let path = lines[0].split(' ').nth(1).unwrap_or_default().to_string();
    let header = |name: &str| {
        let mut found = lines.iter().filter_map(|line| line.split_once(": "));
        found
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_string())
    };
    if manners.gated && header("authorization").as_deref() != Some(&format!("Bearer {TOKEN}")) {
        return send(stream, "401 Unauthorized", &[], b"", None);
    }
    if path.starts_with("/api/models/shop/clip/revision/") {
        if path.ends_with("/absent") {
            return send(stream, "404 Not Found", &[], b"", None);
        }
        let mut names: Vec<_> = files.keys().cloned().collect();
        if manners.escapes {
            names.push("../../evil.json".into());
        }
        let siblings: Vec<_> = names
            .iter()
            .map(|name| serde_json::json!({"rfilename": name}))
            .collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return send(stream, "200 OK", &[], body.as_bytes(), None);
    }
    let place = format!("/shop/clip/resolve/{COMMIT}/");
    let Some((name, content)) = path
        .strip_prefix(&place)
        .and_then(|name| files.get_key_value(name))
    else {
        return send(stream, "404 Not Found", &[], b"", None);
    };
    let range = header("range").unwrap_or_default();
    let range = range
        .strip_prefix("bytes=")
        .unwrap_or("0-")
        .split_once('-')
        .unwrap();
    let probe = range.1 == "0";
    let mut start: usize = range.0.parse().unwrap();
    if manners.forgets_ranges && !probe {
        start = 0;
    }
    let end = if probe {
        1.min(content.len())
    } else {
        content.len()
    };
    let mut digest = Sha256::digest(content);
    if manners.lies {
        digest[0] ^= 1;
    }
    let etag = format!("{digest:x}");
    let headers = [
        format!("ETag: \"{etag}\""),
        format!("X-Repo-Commit: {COMMIT}"),
        format!(
            "Content-Range: bytes {start}-{}/{}",
            end.saturating_sub(1),
            content.len()
        ),
    ];
    let body = &content[start.min(end)..end];
    let mut cut = None;
    if !probe {
        let mut seen = seen.lock().unwrap();
        seen.files.push(name.clone());
        cut = manners.drops_after.filter(|most| *most < body.len());
        seen.dropped += usize::from(cut.is_some());
    }
    send(stream, "206 Partial Content", &headers, body, cut);
}

/// An answer that promises all of `body` and sends `cut` bytes of it.
fn send(mut stream: TcpStream, status: &str, headers: &[String], body: &[u8], cut: Option<usize>) {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    for header in headers {
        head += header;
        head += "\r\n";
    }
    head += "\r\n";
    let body = &body[..cut.unwrap_or(body.len())];
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
    let _ = stream.flush();
}

/// A CLIP in the hub's layout, with much beside it that nobody needs.
fn repository() -> BTreeMap<String, Vec<u8>> {
    let model = golden_dir("clip").join("model");
    let tokenizer = golden_dir("pipeline").join("model/tokenizer");
    let read = |path: std::path::PathBuf| std::fs::read(path).unwrap();
    let mut files = BTreeMap::new();
    for name in ["config.json", "model.safetensors"] {
        files.insert(name.to_string(), read(model.join(name)));
    }
    for name in ["vocab.json", "merges.txt"] {
        files.insert(name.to_string(), read(tokenizer.join(name)));
    }
    for name in [
        "README.md",
        "pytorch_model.bin",
        "flax_model.msgpack",
        "onnx/model.onnx",
    ] {
        files.insert(name.to_string(), vec![7; 1000]);
    }
    files
}

#[track_caller]
fn says(output: &Output, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    assert!(!said.contains("mistake of its own"), "{said}");
}

fn report(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_str(&stdout(output)).expect("JSON")
}

#[test]
fn dropped_connections_go_on_and_only_what_is_needed_comes() {
    let files = repository();
    let weights = &files["model.safetensors"];
    let manners = Manners {
        drops_after: Some(weights.len() / 3),
        gated: true,
        ..Manners::default()
    };
    let (hub, home) = (
        Hub::start(files.clone(), manners),
        tempfile::tempdir().unwrap(),
    );
    let fetched = report(&hub.fetch(home.path(), &["shop/clip", "--json"]));
    assert_eq!(
        (&fetched["commit"], &fetched["new_files"]),
        (&COMMIT.into(), &4.into())
    );
    let folder = Path::new(fetched["folder"].as_str().unwrap());
    for name in [
        "config.json",
        "model.safetensors",
        "vocab.json",
        "merges.txt",
    ] {
        assert_eq!(
            std::fs::read(folder.join(name)).unwrap(),
            files[name],
            "{name}"
        );
    }
    {
        let seen = hub.seen.lock().unwrap();
        assert!(seen.dropped >= 2, "{} connections dropped", seen.dropped);
        let unneeded = [
            "README.md",
            "pytorch_model.bin",
            "flax_model.msgpack",
            "onnx/model.onnx",
        ];
        assert!(
            seen.files
                .iter()
                .all(|name| !unneeded.contains(&name.as_str())),
            "{:?}",
            seen.files
        );
    }
    // Again: nothing is asked for twice.
    let before = hub.seen.lock().unwrap().files.len();
    let again = report(&hub.fetch(home.path(), &["shop/clip", "--json"]));
    assert_eq!(again["new_files"], 0);
    assert_eq!(hub.seen.lock().unwrap().files.len(), before);
    // The fetched folder loads, and the name alone finds it.
    let golden = golden_dir("clip").join("golden.safetensors");
    let check = Command::cargo_bin("ragar")
        .unwrap()
        .env("HF_HOME", home.path())
        .args(["model", "check", "shop/clip", "--golden"])
        .arg(&golden)
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", stderr(&check));
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_gave_up() {
    let files = repository();
    // So little at a time that one run's patience does not suffice.
    let manners = Manners {
        drops_after: Some(files["model.safetensors"].len() / 14),
        ..Manners::default()
    };
    let (hub, home) = (
        Hub::start(files.clone(), manners),
        tempfile::tempdir().unwrap(),
    );
    let first = hub.fetch(home.path(), &["shop/clip"]);
    says(&first, &["shop/clip/model.safetensors", "again"]);
    let mut folder = None;
    for _ in 0..4 {
        let next = hub.fetch(home.path(), &["shop/clip", "--json"]);
        if next.status.success() {
            folder = Some(report(&next)["folder"].as_str().unwrap().to_string());
            break;
        }
    }
    let folder = folder.expect("a later run ends");
    let found = std::fs::read(Path::new(&folder).join("model.safetensors")).unwrap();
    assert_eq!(found, files["model.safetensors"]);
}

#[test]
fn refusals_say_the_way_out() {
    let manners = Manners {
        gated: true,
        ..Manners::default()
    };
    let (hub, home) = (
        Hub::start(repository(), manners),
        tempfile::tempdir().unwrap(),
    );
    says(
        &hub.fetch_as(home.path(), None, &["shop/clip"]),
        &["shop/clip", "401", "HF_TOKEN"],
    );
    says(
        &hub.fetch(home.path(), &["shop/shoes"]),
        &["shop/shoes", "404"],
    );
    says(
        &hub.fetch(home.path(), &["shop/clip", "--revision", "absent"]),
        &["absent", "404"],
    );
    says(
        &hub.fetch(home.path(), &["clip"]),
        &["`clip`", "owner/name"],
    );
    says(&hub.fetch(home.path(), &["../secrets/x"]), &["owner/name"]);
    // The token that logging in leaves in the cache's folder does as well.
    std::fs::write(home.path().join("token"), format!("{TOKEN}\n")).unwrap();
    assert!(
        hub.fetch_as(home.path(), None, &["shop/clip"])
            .status
            .success()
    );
}

#[test]
fn damaged_downloads_are_noticed_and_removed() {
    for (manners, word) in [
        (
            Manners {
                lies: true,
                ..Manners::default()
            },
            "SHA-256",
        ),
        (
            Manners {
                forgets_ranges: true,
                drops_after: Some(20_000),
                ..Manners::default()
            },
            "damaged",
        ),
    ] {
        let (hub, home) = (
            Hub::start(repository(), manners),
            tempfile::tempdir().unwrap(),
        );
        let output = hub.fetch(home.path(), &["shop/clip"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(word) || said.contains("again"), "{said}");
        let blobs = home.path().join("hub/models--shop--clip/blobs");
        let whole: Vec<_> = std::fs::read_dir(blobs)
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().extension().is_none())
            .map(|entry| std::fs::read(entry.path()).unwrap())
            .collect();
        let files = repository();
        assert!(
            whole
                .iter()
                .all(|content| files.values().any(|file| file == content)),
            "nothing damaged stays under a name that promises a whole file"
        );
    }
}

#[test]
fn a_listing_cannot_leave_the_cache() {
    let manners = Manners {
        escapes: true,
        ..Manners::default()
    };
    // A name that leaves is not among those that loading needs, and is not asked for.
    let (hub, home) = (
        Hub::start(repository(), manners),
        tempfile::tempdir().unwrap(),
    );
    assert!(hub.fetch(home.path(), &["shop/clip"]).status.success());
    assert!(!home.path().parent().unwrap().join("evil.json").exists());
    let seen = hub.seen.lock().unwrap();
    assert!(seen.files.iter().all(|name| !name.contains("evil")));
}

#[test]
fn a_repository_without_weights_is_named() {
    let files = BTreeMap::from([
        ("config.json".to_string(), b"{}".to_vec()),
        ("tf_model.h5".to_string(), vec![0; 10]),
    ]);
    let (hub, home) = (
        Hub::start(files, Manners::default()),
        tempfile::tempdir().unwrap(),
    );
    says(
        &hub.fetch(home.path(), &["shop/clip"]),
        &["shop/clip", "no weights", "tf_model.h5"],
    );
}
