//! `ragar data pictures` against a server of our own that stalls, lies, breaks off and says "later".

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Cursor, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use image::{ImageFormat, Rgb, RgbImage};
use ragar::data::fetching::{FetchError, FetchOptions, FetchReport, PrivateNetworks, fetch};
use ragar::data::folder::DataFolder;
use ragar::data::image::ImageLimits;
use ragar::optimisation::{Interrupt, Silent};

/// A question as the server got it.
#[derive(Debug, Clone)]
struct Question {
    path: String,
    headers: HashMap<String, String>,
    at: Instant,
}

type Questions = Arc<Mutex<Vec<Question>>>;

/// A server on this machine; each connection answers one question by `answer`, which counts the questions of a path.
struct Server {
    address: SocketAddr,
    questions: Questions,
}

impl Server {
    fn start(answer: impl Fn(&Question, usize, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let questions = Questions::default();
        let asked = questions.clone();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, asked) = (answer.clone(), asked.clone());
                std::thread::spawn(move || serve(stream, &*answer, &asked));
            }
        });
        Self { address, questions }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self, path: &str) -> Vec<Question> {
        let questions = self.questions.lock().expect("whole");
        questions
            .iter()
            .filter(|question| question.path == path)
            .cloned()
            .collect()
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &(impl Fn(&Question, usize, &mut TcpStream) + ?Sized),
    asked: &Questions,
) {
    let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
    let Some(Ok(first)) = lines.next() else {
        return;
    };
    let headers = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_string()))
        });
    let question = Question {
        path: first.split(' ').nth(1).unwrap_or_default().to_string(),
        headers: headers.collect(),
        at: Instant::now(),
    };
    let num_before = {
        let mut asked = asked.lock().expect("whole");
        asked.push(question.clone());
        asked
            .iter()
            .filter(|other| other.path == question.path)
            .count()
            - 1
    };
    answer(&question, num_before, &mut stream);
}

fn head(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)]) {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    // Whoever asked may be gone.
    let _ = stream.write_all((text + "\r\n").as_bytes());
}

fn whole(stream: &mut TcpStream, bytes: &[u8], headers: &[(&str, &str)]) {
    let length = bytes.len().to_string();
    let mut headers = headers.to_vec();
    headers.push(("Content-Length", &length));
    head(stream, "200 OK", &headers);
    let _ = stream.write_all(bytes);
}

/// A picture of noise, so that its file is as long as its pixels.
fn png() -> Vec<u8> {
    let picture = RgbImage::from_fn(64, 64, |x, y| {
        let value = (x * 2_654_435_761).wrapping_add(y.wrapping_mul(40_503)) ^ (x * y * 97);
        Rgb([value as u8, (value >> 8) as u8, (value >> 3) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .expect("a picture");
    bytes.into_inner()
}

/// A data folder whose pictures have addresses: name of the item and address.
struct Folder {
    root: tempfile::TempDir,
}

impl Folder {
    fn new(pictures: &[(&str, String)]) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let rows: String = pictures
            .iter()
            .map(|(name, url)| format!("{name},images/{name}.png,a picture,{url}\n"))
            .collect();
        let first = pictures[0].0;
        let files = [
            ("items.csv", format!("item_id,image,text,url\n{rows}")),
            (
                "interactions.csv",
                format!("user_id,item_id,timestamp\nu,{first},1\n"),
            ),
            (
                "histories.jsonl",
                format!("{{\"user\":\"u\",\"history\":[\"{first}\"],\"reference\":\"{first}\"}}\n"),
            ),
        ];
        for (name, text) in files {
            std::fs::write(root.path().join(name), text).expect("a file");
        }
        Self { root }
    }

    fn image(&self, name: &str) -> PathBuf {
        self.root.path().join(format!("images/{name}.png"))
    }

    fn run(&self, options: &FetchOptions) -> FetchReport {
        self.try_run(options).expect("the run itself does not fail")
    }

    fn try_run(&self, options: &FetchOptions) -> Result<FetchReport, FetchError> {
        fetch(
            self.root.path(),
            options,
            &limits(),
            &Interrupt::default(),
            &Silent,
        )
    }

    fn ledger(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.root.path().join("pictures-failed.jsonl"))
            .unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// The one failure's reason, and that nothing of it lies in the folder.
    #[track_caller]
    fn assert_failed(&self, name: &str, may_pass: bool, words: &[&str]) {
        let ledger = self.ledger();
        let entry = ledger
            .iter()
            .find(|entry| entry["item"] == name)
            .expect("an entry");
        let reason = entry["reason"].as_str().expect("a reason");
        for word in words {
            assert!(reason.contains(word), "no {word:?} in {reason:?}");
        }
        assert_eq!(entry["may_pass"], may_pass, "{reason}");
        assert!(!self.image(name).exists());
    }
}

fn limits() -> ImageLimits {
    ImageLimits {
        max_file_bytes: 200_000,
        ..ImageLimits::default()
    }
}

/// Fast, and allowed to ask this machine.
fn options() -> FetchOptions {
    FetchOptions {
        per_second: 1_000.0,
        timeout: Duration::from_millis(400),
        longest: Duration::from_secs(5),
        retries: 2,
        first_wait: Duration::from_millis(20),
        longest_wait: Duration::from_secs(3),
        private: PrivateNetworks::These(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
        ..FetchOptions::default()
    }
}

#[test]
fn pictures_come_and_are_not_asked_for_again() {
    let picture = png();
    let sent = picture.clone();
    let server =
        Server::start(move |_, _, stream| whole(stream, &sent, &[("Content-Type", "image/png")]));
    let names: Vec<String> = (0..30).map(|n| format!("p{n}")).collect();
    let pictures: Vec<(&str, String)> = names
        .iter()
        .map(|name| (name.as_str(), server.url(&format!("/{name}"))))
        .collect();
    let folder = Folder::new(&pictures);
    let report = folder.run(&options());
    assert_eq!(
        (report.num_pictures, report.num_fetched, report.num_failed),
        (30, 30, 0)
    );
    assert_eq!(report.num_bytes, 30 * picture.len() as u64);
    assert_eq!(std::fs::read(folder.image("p7")).expect("there"), picture);
    let question = &server.asked("/p7")[0];
    assert!(
        question.headers["user-agent"].starts_with("ragar/"),
        "{question:?}"
    );
    assert_eq!(question.headers["accept-encoding"], "identity");
    assert!(question.headers["accept"].contains("image/png"));
    let again = folder.run(&options());
    assert_eq!((again.num_there_before, again.num_fetched), (30, 0));
    assert_eq!(server.questions.lock().expect("whole").len(), 30);
    assert!(!folder.root.path().join(".pictures").exists());
    assert!(folder.ledger().is_empty());
    DataFolder::open(folder.root.path()).expect("still a data folder");
}

#[test]
fn an_answer_that_breaks_off_goes_on_where_it_stopped() {
    let picture = png();
    let sent = picture.clone();
    let server = Server::start(move |question, num_before, stream| {
        let half = sent.len() / 2;
        let length = sent.len().to_string();
        let tag = ("ETag", "\"v1\"");
        match (num_before, question.headers.get("range")) {
            (0, _) => {
                head(stream, "200 OK", &[("Content-Length", &length), tag]);
                let _ = stream.write_all(&sent[..half]);
            }
            (_, Some(range)) => {
                let from: usize = range
                    .trim_start_matches("bytes=")
                    .trim_end_matches('-')
                    .parse()
                    .expect("a range");
                let rest = sent[from..].len().to_string();
                let place = format!("bytes {from}-{}/{length}", sent.len() - 1);
                head(
                    stream,
                    "206 Partial Content",
                    &[("Content-Length", &rest), ("Content-Range", &place), tag],
                );
                let _ = stream.write_all(&sent[from..]);
            }
            _ => whole(stream, b"the range was not asked for", &[]),
        }
    });
    let folder = Folder::new(&[("a", server.url("/a"))]);
    // Not even tried again: the next run goes on.
    let first = folder.run(&FetchOptions {
        retries: 0,
        ..options()
    });
    assert_eq!((first.num_fetched, first.num_failed), (0, 1));
    folder.assert_failed("a", true, &["broke off"]);
    assert!(folder.root.path().join(".pictures").is_dir());
    let second = folder.run(&options());
    assert_eq!((second.num_fetched, second.num_failed), (1, 0));
    let asked = server.asked("/a");
    assert_eq!(asked.len(), 2);
    assert_eq!(
        asked[1].headers["range"],
        format!("bytes={}-", picture.len() / 2)
    );
    assert_eq!(asked[1].headers["if-range"], "\"v1\"");
    assert_eq!(std::fs::read(folder.image("a")).expect("there"), picture);
    assert!(!folder.root.path().join(".pictures").exists());
    assert!(folder.ledger().is_empty());
}

#[test]
fn a_picture_that_changed_meanwhile_is_not_spliced() {
    let picture = png();
    let sent = picture.clone();
    let server = Server::start(move |question, num_before, stream| {
        let length = sent.len().to_string();
        match num_before {
            0 => {
                head(
                    stream,
                    "200 OK",
                    &[("Content-Length", &length), ("ETag", "\"old\"")],
                );
                let _ = stream.write_all(&[7; 900]);
            }
            // If-Range does not hold, so the whole new one is sent.
            1 if question.path == "/whole" => whole(stream, &sent, &[("ETag", "\"new\"")]),
            1 => head(
                stream,
                "416 Range Not Satisfiable",
                &[("Content-Length", "0")],
            ),
            _ => whole(stream, &sent, &[]),
        }
    });
    let folder = Folder::new(&[("a", server.url("/whole")), ("b", server.url("/refused"))]);
    let report = folder.run(&options());
    assert_eq!(
        (report.num_fetched, report.num_failed),
        (2, 0),
        "{:?}",
        folder.ledger()
    );
    for name in ["a", "b"] {
        assert_eq!(std::fs::read(folder.image(name)).expect("there"), picture);
    }
    assert_eq!(server.asked("/refused").len(), 3);
    assert!(!server.asked("/refused")[2].headers.contains_key("range"));
}

#[test]
fn parts_without_a_mark_to_know_them_by_start_over() {
    let picture = png();
    let sent = picture.clone();
    let server = Server::start(move |_, num_before, stream| {
        let length = sent.len().to_string();
        if num_before == 0 {
            // A weak tag cannot hold parts together.
            head(
                stream,
                "200 OK",
                &[("Content-Length", &length), ("ETag", "W/\"v\"")],
            );
            let _ = stream.write_all(&sent[..500]);
        } else {
            whole(stream, &sent, &[]);
        }
    });
    let folder = Folder::new(&[("a", server.url("/a"))]);
    assert_eq!(folder.run(&options()).num_fetched, 1);
    assert!(!server.asked("/a")[1].headers.contains_key("range"));
    assert_eq!(std::fs::read(folder.image("a")).expect("there"), picture);
}

#[test]
fn a_host_that_says_later_is_left_alone_until_then() {
    let picture = png();
    let server = Server::start(move |question, num_before, stream| {
        match (question.path.as_str(), num_before) {
            ("/later", 0) => head(
                stream,
                "429 Too Many Requests",
                &[("Retry-After", "1"), ("Content-Length", "0")],
            ),
            ("/broken", 0) => head(
                stream,
                "503 Service Unavailable",
                &[("Content-Length", "0")],
            ),
            ("/broken", 1) => head(stream, "502 Bad Gateway", &[("Content-Length", "0")]),
            _ => whole(stream, &picture, &[]),
        }
    });
    let folder = Folder::new(&[("a", server.url("/later")), ("b", server.url("/broken"))]);
    let report = folder.run(&FetchOptions {
        parallel: 1,
        ..options()
    });
    assert_eq!(
        (report.num_fetched, report.num_failed),
        (2, 0),
        "{:?}",
        folder.ledger()
    );
    let later = server.asked("/later");
    assert!(
        later[1].at - later[0].at >= Duration::from_millis(950),
        "{later:?}"
    );
    // The same host: nothing else was asked of it meanwhile.
    for question in server.asked("/broken") {
        assert!(
            question.at < later[0].at || question.at - later[0].at >= Duration::from_millis(950)
        );
    }
    assert_eq!(server.asked("/broken").len(), 3);
}

#[test]
fn a_wait_that_is_too_long_is_left_for_another_run() {
    let server = Server::start(|_, _, stream| {
        head(
            stream,
            "429 Too Many Requests",
            &[("Retry-After", "86400"), ("Content-Length", "0")],
        );
    });
    let folder = Folder::new(&[("a", server.url("/a"))]);
    let started = Instant::now();
    let report = folder.run(&options());
    assert_eq!(report.num_failed, 1);
    folder.assert_failed("a", true, &["429"]);
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(server.asked("/a").len(), 1);
}

#[test]
fn tries_end_and_the_ledger_remembers() {
    let server = Server::start(|question, _, stream| match question.path.as_str() {
        "/gone" => head(stream, "404 Not Found", &[("Content-Length", "0")]),
        _ => head(
            stream,
            "500 Internal Server Error",
            &[("Content-Length", "0")],
        ),
    });
    let folder = Folder::new(&[("a", server.url("/gone")), ("b", server.url("/ill"))]);
    let report = folder.run(&options());
    assert_eq!((report.num_fetched, report.num_failed), (0, 2));
    folder.assert_failed("a", false, &["404"]);
    folder.assert_failed("b", true, &["500"]);
    assert_eq!(
        (server.asked("/gone").len(), server.asked("/ill").len()),
        (1, 3)
    );
    let again = folder.run(&options());
    assert_eq!((again.num_failed, again.num_not_tried), (2, 1));
    assert_eq!(
        (server.asked("/gone").len(), server.asked("/ill").len()),
        (1, 6)
    );
    folder.run(&FetchOptions {
        retry_failed: true,
        retries: 0,
        ..options()
    });
    assert_eq!(
        (server.asked("/gone").len(), server.asked("/ill").len()),
        (2, 7)
    );
}

#[test]
fn only_pictures_within_the_limits_count() {
    let mut bomb = png();
    // The header's promise: 60,000 pixels a side, with its checksum.
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = crc32(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&crc);
    let server = Server::start(move |question, _, stream| match question.path.as_str() {
        "/html" => whole(
            stream,
            b"<html>Please log in</html>",
            &[("Content-Type", "image/png")],
        ),
        "/empty" => whole(stream, b"", &[("Content-Type", "image/png")]),
        "/bomb" => whole(stream, &bomb, &[("Content-Type", "image/png")]),
        "/cut" => whole(stream, &png()[..600], &[("Content-Type", "image/png")]),
        "/gzip" => whole(stream, b"\x1f\x8b", &[("Content-Encoding", "gzip")]),
        // Says that it is large, and would be.
        "/large" => head(stream, "200 OK", &[("Content-Length", "999999999999")]),
        // Says nothing, and does not end.
        _ => {
            head(stream, "200 OK", &[]);
            while stream.write_all(&[0x89; 1 << 16]).is_ok() {}
        }
    });
    let names = ["html", "empty", "bomb", "cut", "gzip", "large", "endless"];
    let pictures: Vec<(&str, String)> = names
        .iter()
        .map(|name| (*name, server.url(&format!("/{name}"))))
        .collect();
    let folder = Folder::new(&pictures);
    let report = folder.run(&options());
    assert_eq!((report.num_fetched, report.num_failed), (0, 7));
    folder.assert_failed("html", false, &["not a PNG"]);
    folder.assert_failed("empty", false, &["not a PNG"]);
    folder.assert_failed("bomb", false, &["60000×60000"]);
    folder.assert_failed("cut", false, &["corrupt"]);
    folder.assert_failed("gzip", false, &["gzip"]);
    folder.assert_failed("large", false, &["999999999999 bytes", "200000"]);
    folder.assert_failed("endless", false, &["200000"]);
    for name in names {
        assert_eq!(
            server.asked(&format!("/{name}")).len(),
            1,
            "{name} is not tried again"
        );
    }
    assert!(!folder.root.path().join(".pictures").exists());
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

#[test]
fn lies_about_the_length_are_seen() {
    let picture = png();
    let sent = picture.clone();
    let server = Server::start(move |question, num_before, stream| {
        let long = (sent.len() + 100).to_string();
        let short = (sent.len() - 100).to_string();
        match (question.path.as_str(), num_before) {
            // More promised than sent, once.
            ("/long", 0) => {
                head(stream, "200 OK", &[("Content-Length", &long)]);
                let _ = stream.write_all(&sent);
            }
            // Less promised than sent: what is promised is no whole picture.
            ("/short", _) => {
                head(stream, "200 OK", &[("Content-Length", &short)]);
                let _ = stream.write_all(&sent);
            }
            // Without a length, the end is the end.
            ("/silent", _) => {
                head(stream, "200 OK", &[]);
                let _ = stream.write_all(&sent);
            }
            _ => whole(stream, &sent, &[]),
        }
    });
    let names = ["long", "short", "silent"];
    let pictures: Vec<(&str, String)> = names
        .iter()
        .map(|name| (*name, server.url(&format!("/{name}"))))
        .collect();
    let folder = Folder::new(&pictures);
    let report = folder.run(&options());
    assert_eq!(
        (report.num_fetched, report.num_failed),
        (2, 1),
        "{:?}",
        folder.ledger()
    );
    assert_eq!(server.asked("/long").len(), 2);
    folder.assert_failed("short", false, &["corrupt"]);
    assert_eq!(
        std::fs::read(folder.image("silent")).expect("there"),
        picture
    );
}

#[test]
fn silence_ends_by_the_clock() {
    let server = Server::start(|question, _, stream| {
        match question.path.as_str() {
            "/mute" => {}
            "/stalls" => {
                head(stream, "200 OK", &[("Content-Length", "5000")]);
                let _ = stream.write_all(&[1; 100]);
            }
            // A byte now and then: never silent for long, never done.
            _ => {
                head(stream, "200 OK", &[("Content-Length", "5000")]);
                while stream.write_all(&[1]).is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        std::thread::sleep(Duration::from_secs(6));
    });
    let names = ["mute", "stalls", "drips"];
    let pictures: Vec<(&str, String)> = names
        .iter()
        .map(|name| (*name, server.url(&format!("/{name}"))))
        .collect();
    let folder = Folder::new(&pictures);
    let started = Instant::now();
    let report = folder.run(&FetchOptions {
        retries: 0,
        longest: Duration::from_secs(1),
        ..options()
    });
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(report.num_failed, 3);
    for name in names {
        folder.assert_failed(name, true, &[]);
    }
}

#[test]
fn redirects_are_followed_so_far_and_not_into_private_networks() {
    let picture = png();
    let server = Server::start(move |question, _, stream| {
        let port = stream.local_addr().expect("an address").port();
        let to = |stream: &mut TcpStream, place: &str| {
            head(
                stream,
                "302 Found",
                &[("Location", place), ("Content-Length", "0")],
            );
        };
        match question.path.as_str() {
            "/near" => to(stream, "there/../picture"),
            "/loop" => to(stream, "/loop"),
            "/private" => to(stream, &format!("http://127.0.0.2:{port}/picture")),
            "/metadata" => to(stream, "http://169.254.169.254/latest/meta-data"),
            "/mapped" => to(stream, &format!("http://[::ffff:127.0.0.2]:{port}/picture")),
            "/number" => to(stream, &format!("http://2130706434:{port}/picture")),
            "/file" => to(stream, "file:///etc/passwd"),
            "/user" => to(
                stream,
                &format!("http://me:secret@127.0.0.1:{port}/picture"),
            ),
            "/nowhere" => head(stream, "302 Found", &[("Content-Length", "0")]),
            _ => whole(stream, &picture, &[]),
        }
    });
    let names = [
        "near", "loop", "private", "metadata", "mapped", "number", "file", "user", "nowhere",
    ];
    let pictures: Vec<(&str, String)> = names
        .iter()
        .map(|name| (*name, server.url(&format!("/{name}"))))
        .collect();
    let folder = Folder::new(&pictures);
    let report = folder.run(&options());
    assert_eq!(
        (report.num_fetched, report.num_failed),
        (1, 8),
        "{:?}",
        folder.ledger()
    );
    assert!(folder.image("near").is_file());
    folder.assert_failed("loop", false, &["more than 5 redirects"]);
    assert_eq!(server.asked("/loop").len(), 6);
    folder.assert_failed(
        "private",
        false,
        &["127.0.0.2", "private", "--allow-private"],
    );
    folder.assert_failed("metadata", false, &["169.254.169.254", "private"]);
    folder.assert_failed("mapped", false, &["127.0.0.2", "private"]);
    // 2130706434 is 127.0.0.2 written as one number.
    folder.assert_failed("number", false, &["127.0.0.2", "private"]);
    folder.assert_failed("file", false, &["http"]);
    folder.assert_failed("user", false, &["password"]);
    folder.assert_failed("nowhere", false, &["no place to go"]);
}

#[test]
fn private_addresses_are_refused_without_being_asked() {
    let server = Server::start(|_, _, stream| whole(stream, &png(), &[]));
    let port = server.address.port();
    let folder = Folder::new(&[
        ("address", server.url("/a")),
        // A name that leads here is no better.
        ("name", format!("http://localhost:{port}/b")),
    ]);
    let wary = FetchOptions {
        private: PrivateNetworks::None,
        ..options()
    };
    assert_eq!(folder.run(&wary).num_failed, 2);
    folder.assert_failed("address", false, &["127.0.0.1", "private"]);
    folder.assert_failed("name", false, &["localhost", "private"]);
    assert!(server.questions.lock().expect("whole").is_empty());
    let report = folder.run(&FetchOptions {
        private: PrivateNetworks::All,
        retry_failed: true,
        ..options()
    });
    assert_eq!(report.num_fetched, 2);
}

#[test]
fn each_host_is_asked_at_its_pace() {
    let picture = png();
    let server = Server::start(move |_, _, stream| whole(stream, &picture, &[]));
    let names: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    let pictures: Vec<(&str, String)> = names
        .iter()
        .map(|name| (name.as_str(), server.url(&format!("/{name}"))))
        .collect();
    let folder = Folder::new(&pictures);
    let started = Instant::now();
    let report = folder.run(&FetchOptions {
        per_second: 10.0,
        ..options()
    });
    assert_eq!(report.num_fetched, 8);
    assert!(
        started.elapsed() >= Duration::from_millis(700),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_stopped_run_keeps_what_it_has_and_goes_on() {
    let picture = png();
    let sent = picture.clone();
    let server = Server::start(move |question, num_before, stream| {
        if question.path == "/slow" && num_before == 0 {
            let length = sent.len().to_string();
            head(
                stream,
                "200 OK",
                &[("Content-Length", &length), ("ETag", "\"v\"")],
            );
            let _ = stream.write_all(&sent[..700]);
            std::thread::sleep(Duration::from_secs(5));
        } else if let Some(range) = question.headers.get("range") {
            let from: usize = range
                .trim_start_matches("bytes=")
                .trim_end_matches('-')
                .parse()
                .expect("a range");
            let rest = (sent.len() - from).to_string();
            let place = format!("bytes {from}-{}/{}", sent.len() - 1, sent.len());
            head(
                stream,
                "206 Partial Content",
                &[("Content-Length", &rest), ("Content-Range", &place)],
            );
            let _ = stream.write_all(&sent[from..]);
        } else {
            whole(stream, &sent, &[]);
        }
    });
    let folder = Folder::new(&[("slow", server.url("/slow")), ("fast", server.url("/fast"))]);
    let interrupt = Interrupt::default();
    let raise = interrupt.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        raise.raise();
    });
    let patient = FetchOptions {
        timeout: Duration::from_secs(30),
        ..options()
    };
    let started = Instant::now();
    let report = fetch(folder.root.path(), &patient, &limits(), &interrupt, &Silent)
        .expect("stops in order");
    assert!(report.interrupted);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    assert!(folder.image("fast").is_file() && !folder.image("slow").exists());
    assert!(folder.ledger().is_empty(), "stopping is no failure");
    let report = folder.run(&options());
    assert_eq!((report.num_there_before, report.num_fetched), (1, 1));
    assert_eq!(server.asked("/slow")[1].headers["range"], "bytes=700-");
    assert_eq!(std::fs::read(folder.image("slow")).expect("there"), picture);
}

#[test]
fn a_folder_that_cannot_be_used_is_refused() {
    let cases = [
        ("item_id,image,text\na,images/a.png,t\n", "url"),
        (
            "item_id,image,text,url\na,../a.png,t,http://x.org/a\n",
            "row 2, image",
        ),
        (
            "item_id,image,text,url\na,/a.png,t,http://x.org/a\n",
            "absolute",
        ),
        (
            "item_id,image,text,url\na,a.png,t,ftp://x.org/a\n",
            "row 2, url",
        ),
        (
            "item_id,image,text,url\na,a.png,t,http://x.org/a\nb,a.png,t,http://x.org/b\n",
            "row 3, image",
        ),
        ("", "empty"),
    ];
    for (items, word) in cases {
        let folder = Folder::new(&[("a", "http://x.org/a".into())]);
        std::fs::write(folder.root.path().join("items.csv"), items).expect("a file");
        let message = folder.try_run(&options()).expect_err("refused").to_string();
        assert!(
            message.contains("items.csv") && message.contains(word),
            "{message}"
        );
    }
    let folder = Folder::new(&[("a", "http://x.org/a".into())]);
    for (options, word) in [
        (
            FetchOptions {
                parallel: 0,
                ..options()
            },
            "--parallel",
        ),
        (
            FetchOptions {
                per_second: f64::NAN,
                ..options()
            },
            "--per-second",
        ),
        (
            FetchOptions {
                timeout: Duration::ZERO,
                ..options()
            },
            "--timeout",
        ),
    ] {
        let message = folder.try_run(&options).expect_err("refused").to_string();
        assert!(message.contains(word), "{message}");
    }
    assert!(
        fetch(
            &folder.root.path().join("no"),
            &options(),
            &limits(),
            &Interrupt::default(),
            &Silent
        )
        .is_err()
    );
}

#[cfg(unix)]
#[test]
fn a_link_does_not_lead_pictures_out_of_the_folder() {
    let server = Server::start(|_, _, stream| whole(stream, &png(), &[]));
    let folder = Folder::new(&[("a", server.url("/a"))]);
    let outside = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(outside.path(), folder.root.path().join("images")).expect("a link");
    assert_eq!(folder.run(&options()).num_failed, 1);
    assert_eq!(
        std::fs::read_dir(outside.path()).expect("a folder").count(),
        0
    );
    assert!(server.asked("/a").is_empty());
}
