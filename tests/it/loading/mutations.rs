//! Every loader against files that were spoilt at random: an answer or a refusal, never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ragar::data::check::check;
use ragar::data::image::ImageLimits;
use ragar::data::loading::movielens::{self, MovieLensOptions};
use ragar::data::loading::pog::{self, PogOptions};
use ragar::data::loading::recbole::{self, RecBoleOptions};
use ragar::data::loading::ser30k::{self, Ser30kOptions};
use ragar::data::loading::table::{self, TableOptions};
use ragar::data::loading::{LoadError, LoadOptions, LoadReport, WithoutPicture};
use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Bench, history};

/// Pieces that parsers stumble over.
const PIECES: [&[u8]; 26] = [
    b"\"",
    b",",
    b"\n",
    b"\r",
    b"\r\n",
    b"\t",
    b";",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"-1",
    b"1e400",
    b"NaN",
    b"99999999999999999999",
    b"//",
    b"://",
    b"https://[::1",
    b"../",
    b"{",
    b"}",
    b"[",
    b"null",
    b":token",
    b"|",
    b"\xe9\x9d\xb4",
    b"",
];

fn spoil(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut spoilt = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let from = rng.random_range(0..=spoilt.len());
        let to = (from + rng.random_range(0..8)).min(spoilt.len());
        match rng.random_range(0..5) {
            0 => spoilt.truncate(from),
            1 => {
                let piece = spoilt[from..to].to_vec();
                spoilt.splice(from..from, piece);
            }
            2 if from < spoilt.len() => spoilt[from] ^= 1 << rng.random_range(0..8),
            _ => {
                let piece = PIECES[rng.random_range(0..PIECES.len())];
                spoilt.splice(from..to, piece.iter().copied());
            }
        }
    }
    spoilt
}

/// Spoils one of `files` at a time; what loads must pass the check.
fn spoil_each(
    files: &[(&str, &str)],
    prepare: impl Fn(&Bench),
    load: impl Fn(&Path, LoadOptions, &Path) -> Result<LoadReport, LoadError>,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let bench = Bench::new();
    prepare(&bench);
    let (mut num_loaded, mut num_refused) = (0, 0);
    for round in 0..400 {
        for (name, text) in files {
            bench.write(name, text);
        }
        let (name, text) = files[round % files.len()];
        let spoilt = spoil(text.as_bytes(), &mut rng);
        bench.write(name, &spoilt);
        let mut options = history(2);
        options.skip_bad = round % 2 == 0;
        options.selection.without_picture = WithoutPicture::Blank;
        let result = catch_unwind(AssertUnwindSafe(|| {
            load(bench.root.path(), options, &bench.out())
        }));
        let spoilt = String::from_utf8_lossy(&spoilt);
        match result.unwrap_or_else(|_| panic!("panicked on {name}: {spoilt}")) {
            Ok(_) => {
                num_loaded += 1;
                let report = check(bench.out(), &ImageLimits::default()).expect("a folder");
                let others = report.findings.iter().filter(|finding| {
                    let text = finding.to_string();
                    !text.contains("is missing") && !text.contains("text is empty")
                });
                assert_eq!(others.count(), 0, "{name}: {spoilt}\n{report}");
            }
            Err(error) => {
                num_refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    // Either alone would mean that nothing was tried.
    assert!(
        num_loaded > 20 && num_refused > 20,
        "{num_loaded} loaded, {num_refused} refused"
    );
}

#[test]
fn movielens_survives() {
    let files = [
        (
            "ml/movies.csv",
            "movieId,title,genres\n1,\"A, The (1990)\",Drama|War\n2,B,Comedy\n3,C,(no genres listed)\n",
        ),
        (
            "ml/ratings.csv",
            "userId,movieId,rating,timestamp\n1,1,5,10\n1,2,4.5,20\n1,3,3,30\n2,1,1,5\n2,3,2,6\n2,2,2,7\n",
        ),
        (
            "ml/links.csv",
            "movieId,imdbId,tmdbId\n1,0114709,862\n2,0113497,8844\n3,0113228,\n",
        ),
    ];
    let prepare = |bench: &Bench| bench.picture("posters/tt0114709.png");
    spoil_each(&files, prepare, |root, load, out| {
        let options = MovieLensOptions {
            source: root.join("ml"),
            posters: Some(root.join("posters")),
            load,
            ..MovieLensOptions::default()
        };
        movielens::load(&options, out)
    });
}

#[test]
fn pog_survives() {
    let files = [
        (
            "pog/item_data.txt",
            "a,1,//x.org/a.jpg,裙子\nb,1,http://x.org/b,t\nc,2,,\nd,2,x.org/d.png,u\n",
        ),
        (
            "pog/user_data.txt",
            "u,a;b;c;d,o\nv,d;c;b,p\nu,b;a,p\nw,a;b;d,o\n",
        ),
        ("pog/outfit_data.txt", "o,a;b\np,c;d\n"),
    ];
    spoil_each(
        &files,
        |_| {},
        |root, load, out| {
            let options = PogOptions {
                source: root.join("pog"),
                num_users: 2,
                items_per_user: 3,
                outfits: true,
                load,
            };
            pog::load(&options, out)
        },
    );
}

#[test]
fn ser30k_survives() {
    let annotations = r#"{"annotations": [
        {"topic": "a", "file_name": "1.png", "text": "hi", "anno": 1}, {"topic": "a", "file_name": "2.png", "text": "", "anno": 7},
        {"topic": "b", "file_name": "1.png", "text": "", "anno": 2}, {"topic": "c", "file_name": "1.png", "text": "x", "anno": 3}]}"#;
    let prepare = |bench: &Bench| {
        for name in ["a/1", "a/2", "b/1", "c/1"] {
            bench.picture(&format!("ser/Images/{name}.png"));
        }
    };
    spoil_each(
        &[("ser/Annotations/train.json", annotations)],
        prepare,
        |root, load, out| {
            let options = Ser30kOptions {
                source: root.join("ser"),
                num_users: 3,
                load,
                ..Ser30kOptions::default()
            };
            ser30k::load(&options, out)
        },
    );
}

#[test]
fn recbole_survives() {
    let files = [
        (
            "r/r.inter",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\ta\t3\t10\n1\tb\t4\t20\n1\tc\t4\t30\n2\ta\t1\t1\n",
        ),
        (
            "r/r.item",
            "item_id:token\ttitle:token_seq\timage_url:token\na\tA b\t//x.org/a\nb\tB\t\nc\tC\thttp://x.org/c.png\n",
        ),
    ];
    spoil_each(
        &files,
        |_| {},
        |root, load, out| {
            let options = RecBoleOptions {
                source: root.join("r"),
                load,
                ..RecBoleOptions::default()
            };
            recbole::load(&options, out)
        },
    );
}

#[test]
fn tables_survive() {
    let clicks = "user,item,time,rating\n1,a,10,3\n1,b,2020-01-31T10:00:00Z,4\n1,c,30,5\n2,a,1,2\n";
    let lines = "{\"item\": \"a\", \"title\": \"A\", \"image\": \"//x.org/a\"}\n{\"item\": \"b\", \"title\": [\"B\", null, 3]}\n{\"item\": \"c\", \"image\": \"p.png\"}\n";
    let prepare = |bench: &Bench| bench.picture("t/p.png");
    spoil_each(
        &[("t/clicks.csv", clicks), ("t/items.jsonl", lines)],
        prepare,
        |root, load, out| {
            let options = TableOptions {
                interactions: root.join("t/clicks.csv"),
                items: Some(root.join("t/items.jsonl")),
                min_rating: Some(1.0),
                load,
                ..TableOptions::default()
            };
            table::load(&options, out)
        },
    );
}
