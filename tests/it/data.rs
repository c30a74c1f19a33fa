//! The folder format against everything that people and attackers put into files.

use std::path::Path;

use image::{Rgb, RgbImage, Rgba, RgbaImage};
use ragar::data::check::{CheckReport, check};
use ragar::data::finding::{Problem, Severity};
use ragar::data::folder::{DataError, DataFolder};
use ragar::data::history::{History, Interaction, Split};
use ragar::data::image::{ImageError, ImageLimits, decode};
use ragar::data::pixels::{to_batch, to_pictures, to_tensor};
use ragar::data::preprocess::{CLIP_MEAN, CLIP_STD, ImagePreprocessing, PreprocessError};
use ragar::data::split::{assign_missing, by_time};

use crate::support::{TestBackend, device};

const ITEMS: &str = "item_id,image,text\na,images/a.png,\"red, round\"\nb,images/b.png,blue\nc,images/c.png,\"so-called \"\"green\"\"\"\n";
const INTERACTIONS: &str = "user_id,item_id,timestamp\nu,a,10\nu,b,20\nv,c,15\n";
const HISTORIES: &str = "{\"user\":\"u\",\"history\":[\"a\",\"b\"],\"reference\":\"c\",\"split\":\"test\"}\n{\"user\":\"v\",\"history\":[\"c\"],\"reference\":\"a\",\"target\":\"b\"}\n";

/// A valid folder of three items; each test spoils one thing.
fn folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(root.path().join("images")).expect("a folder");
    for (name, colour) in [("a", [255, 0, 0]), ("b", [0, 0, 255]), ("c", [0, 255, 0])] {
        RgbImage::from_pixel(8, 8, Rgb(colour))
            .save(root.path().join(format!("images/{name}.png")))
            .expect("a picture");
    }
    write(&root, "items.csv", ITEMS);
    write(&root, "interactions.csv", INTERACTIONS);
    write(&root, "histories.jsonl", HISTORIES);
    root
}

fn write(root: &tempfile::TempDir, name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(root.path().join(name), text).expect("a file");
}

fn open_error(root: &tempfile::TempDir) -> String {
    DataFolder::open(root.path())
        .expect_err("the folder is spoilt")
        .to_string()
}

fn checked(root: &tempfile::TempDir) -> CheckReport {
    check(root.path(), &ImageLimits::default()).expect("the folder exists")
}

#[test]
fn a_valid_folder_opens() {
    let root = folder();
    let data = DataFolder::open(root.path()).expect("valid");
    assert_eq!(data.catalogue.len(), 3);
    assert_eq!(data.catalogue[0].text, "red, round");
    assert_eq!(data.catalogue[2].text, "so-called \"green\"");
    assert_eq!(data.catalogue[0].image, root.path().join("images/a.png"));
    assert_eq!(data.catalogue.position("b"), Some(1));
    assert_eq!(data.interactions.len(), 3);
    let [u, v] = data.histories.as_slice() else {
        panic!("two histories")
    };
    assert_eq!((u.history.as_slice(), u.reference), (&[0, 1][..], 2));
    assert_eq!((u.target, u.split), (None, Some(Split::Test)));
    assert_eq!((v.target, v.split), (Some(1), None));
    assert!(checked(&root).is_usable());
    assert!(checked(&root).findings.is_empty());
}

#[test]
fn a_mark_windows_lines_and_column_order_do_not_matter() {
    let root = folder();
    let expected = DataFolder::open(root.path()).expect("valid");
    let windows = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
    write(&root, "items.csv", windows(ITEMS));
    write(
        &root,
        "interactions.csv",
        windows("note,timestamp,user_id,item_id\n,10,u,a\n,20.5,u,b\nlate,15,v,c\n"),
    );
    write(&root, "histories.jsonl", windows(HISTORIES));
    let data = DataFolder::open(root.path()).expect("still valid");
    assert_eq!(data.catalogue.items(), expected.catalogue.items());
    assert_eq!(data.interactions, expected.interactions);
    assert_eq!(data.histories, expected.histories);
}

#[test]
fn faults_are_named_with_file_row_and_column() {
    let long = "item_id,image,text\na,images/a.png,\"two\nlines\"\nb,images/b.png,blue\n";
    let cases: [(&str, &str, &[&str]); 19] = [
        (
            "items.csv",
            "item_id,picture,text\na,b,c\n",
            &["items.csv", "image", "missing", "item_id, picture, text"],
        ),
        (
            "items.csv",
            "item_id,image,text,image\n",
            &["items.csv", "image", "twice"],
        ),
        (
            "items.csv",
            "",
            &["items.csv", "empty", "item_id, image, text"],
        ),
        (
            "items.csv",
            "item_id,image,text\n",
            &["items.csv", "no rows"],
        ),
        (
            "items.csv",
            "item_id,image,text\na,a.png,red, round\n",
            &["items.csv, row 2", "4 fields, expected 3", "quotes"],
        ),
        (
            "items.csv",
            "item_id,image,text\na,a.png,x\nb,b.png,y\na,c.png,z\n",
            &["items.csv, row 4, item_id", "\"a\"", "row 2"],
        ),
        (
            "items.csv",
            &format!("{long}b,c.png,z\n"),
            &["items.csv, row 5, item_id", "row 4"],
        ),
        (
            "items.csv",
            "item_id,image,text\n,a.png,x\n",
            &["row 2, item_id", "empty"],
        ),
        (
            "items.csv",
            "item_id,image,text\na,,x\n",
            &["row 2, image", "empty"],
        ),
        (
            "interactions.csv",
            "user_id,item_id\nu,a\n",
            &["interactions.csv, timestamp", "missing"],
        ),
        (
            "interactions.csv",
            "user_id,item_id,timestamp\nu,a,1\nu,zebra,2\n",
            &["interactions.csv, row 3, item_id", "\"zebra\"", "items.csv"],
        ),
        (
            "interactions.csv",
            "user_id,item_id,timestamp\nu,a,yesterday\n",
            &["row 2, timestamp", "\"yesterday\""],
        ),
        (
            "interactions.csv",
            "user_id,item_id,timestamp\nu,a,NaN\n",
            &["row 2, timestamp", "NaN"],
        ),
        (
            "histories.jsonl",
            "{\"user\":\"u\",\"history\":[\"a\"],\"reference\":\"c\"}\n{\"user\":\"v\",\n",
            &["histories.jsonl, row 2", "JSON"],
        ),
        (
            "histories.jsonl",
            "\n{\"user\":\"u\",\"history\":[\"a\"],\"refrence\":\"c\"}\n",
            &["histories.jsonl, row 2", "refrence"],
        ),
        (
            "histories.jsonl",
            "{\"user\":\"u\",\"history\":[],\"reference\":\"c\"}\n",
            &["row 1, history", "\"u\"", "empty history"],
        ),
        (
            "histories.jsonl",
            "{\"user\":\"u\",\"history\":[\"q\"],\"reference\":\"c\"}\n",
            &["row 1, history", "\"q\""],
        ),
        (
            "histories.jsonl",
            "{\"user\":\"u\",\"history\":[\"a\"],\"reference\":\"c\",\"target\":\"q\"}\n",
            &["row 1, target", "\"q\""],
        ),
        ("histories.jsonl", "", &["histories.jsonl", "no rows"]),
    ];
    for (file, text, expected) in cases {
        let root = folder();
        write(&root, file, text);
        let message = open_error(&root);
        for part in expected {
            assert!(message.contains(part), "{file}: no {part:?} in {message}");
        }
        assert!(!checked(&root).is_usable(), "{file}: {text}");
    }
}

#[test]
fn ids_may_be_numbers() {
    let root = folder();
    write(
        &root,
        "items.csv",
        "item_id,image,text\n1,images/a.png,x\n2,images/b.png,y\n",
    );
    write(
        &root,
        "interactions.csv",
        "user_id,item_id,timestamp\n7,1,1\n",
    );
    write(
        &root,
        "histories.jsonl",
        "{\"user\":7,\"history\":[1],\"reference\":2}\n",
    );
    let data = DataFolder::open(root.path()).expect("valid");
    assert_eq!(data.histories[0].user, "7");
    assert_eq!(data.histories[0].history, [0]);
}

#[test]
fn text_that_is_not_utf8_is_named() {
    let root = folder();
    write(&root, "items.csv", b"item_id,image,text\na,a.png,caf\xe9\n");
    let message = open_error(&root);
    assert!(
        message.contains("row 2, text") && message.contains("UTF-8"),
        "{message}"
    );
}

#[test]
fn missing_files_and_folders_are_named() {
    let root = folder();
    std::fs::remove_file(root.path().join("interactions.csv")).expect("removed");
    let message = open_error(&root);
    assert!(
        message.contains("interactions.csv") && message.contains("missing"),
        "{message}"
    );
    let nowhere = root.path().join("nowhere");
    assert!(matches!(
        DataFolder::open(&nowhere),
        Err(DataError::NoFolder { .. })
    ));
    assert!(check(&nowhere, &ImageLimits::default()).is_err());
}

#[test]
fn pictures_cannot_lead_out_of_the_folder() {
    for path in [
        "/etc/passwd",
        "../a.png",
        "images/../../a.png",
        "C:/a.png",
        "images\\a.png",
    ] {
        let root = folder();
        write(
            &root,
            "items.csv",
            format!("item_id,image,text\na,{path},x\n"),
        );
        let message = open_error(&root);
        assert!(
            message.contains("row 2, image") && message.contains("leaves the folder"),
            "{message}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_found() {
    let root = folder();
    let outside = tempfile::tempdir().expect("a folder");
    let secret = outside.path().join("secret.png");
    RgbImage::new(2, 2).save(&secret).expect("a picture");
    let link = root.path().join("images/a.png");
    std::fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink(&secret, &link).expect("a link");
    let report = checked(&root);
    assert!(
        matches!(report.findings[0].problem, Problem::OutsidePath { .. }),
        "{report}"
    );
}

#[test]
fn check_lists_every_fault_with_its_row() {
    let root = folder();
    write(
        &root,
        "items.csv",
        "item_id,image,text\na,images/a.png,x\nb,images/none.png,y\nc,images/broken.png,z\nd,images/bomb.png,w\na,images/a.png,again\ne,../e.png,v\nf,images/c.png,\n",
    );
    write(
        &root,
        "images/broken.png",
        &std::fs::read(root.path().join("images/a.png")).expect("bytes")[..40],
    );
    write(&root, "images/bomb.png", bomb());
    write(
        &root,
        "interactions.csv",
        "user_id,item_id,timestamp\nu,zebra,1\nu,a,soon\n",
    );
    write(
        &root,
        "histories.jsonl",
        "{\"user\":\"u\",\"history\":[],\"reference\":\"a\"}\n{\"user\":\"v\",\"history\":[\"a\",\"b\"],\"reference\":\"a\",\"target\":\"b\"}\nnonsense\n",
    );
    let report = checked(&root);
    let found: Vec<(&str, usize, &str)> = report
        .findings
        .iter()
        .map(|finding| {
            let json = serde_json::to_value(finding).expect("JSON");
            let problem = json["problem"].as_str().expect("a word").to_string();
            (
                finding.file.as_str(),
                finding.row.expect("a row"),
                &*problem.leak(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("items.csv", 3, "missing-image"),
            ("items.csv", 4, "broken-image"),
            ("items.csv", 5, "oversized-image"),
            ("items.csv", 6, "duplicate-id"),
            ("items.csv", 7, "outside-path"),
            ("items.csv", 8, "empty-text"),
            ("interactions.csv", 2, "unknown-item"),
            ("interactions.csv", 3, "bad-timestamp"),
            ("histories.jsonl", 1, "empty-history"),
            ("histories.jsonl", 2, "reference-in-history"),
            ("histories.jsonl", 2, "target-in-history"),
            ("histories.jsonl", 3, "bad-json"),
        ]
    );
    let warnings = report
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Warning)
        .count();
    assert_eq!(
        (report.num_warnings, report.num_errors),
        (warnings, 12 - warnings)
    );
    assert_eq!(warnings, 3);
    let text = report.to_string();
    assert!(
        text.contains("error: items.csv, row 3, image: image \"images/none.png\" is missing"),
        "{text}"
    );
    assert!(text.contains("60000×60000"), "{text}");
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["num_errors"], 9);
    assert_eq!(json["findings"][0]["column"], "image");
}

#[test]
fn skipping_keeps_what_is_usable() {
    let root = folder();
    write(
        &root,
        "items.csv",
        format!("{ITEMS}a,images/a.png,again\nd,/d.png,x\n"),
    );
    write(
        &root,
        "interactions.csv",
        format!("{INTERACTIONS}u,zebra,3\n"),
    );
    write(
        &root,
        "histories.jsonl",
        format!(
            "{HISTORIES}{{\"user\":\"w\",\"history\":[\"a\",\"zebra\"],\"reference\":\"b\"}}\n{{\"user\":\"x\",\"history\":[\"a\"],\"reference\":\"zebra\"}}\n"
        ),
    );
    let (data, findings) = DataFolder::open_skipping_bad(root.path()).expect("usable");
    assert_eq!(data.catalogue.len(), 3);
    assert_eq!(data.catalogue[0].text, "red, round", "the first row counts");
    assert_eq!(data.interactions.len(), 3);
    let users: Vec<&str> = data.histories.iter().map(|h| h.user.as_str()).collect();
    assert_eq!(users, ["u", "v", "w"]);
    assert_eq!(data.histories[2].history, [0]);
    assert_eq!(findings.len(), 5);
    write(&root, "items.csv", "item_id,text\na,x\n");
    assert!(
        DataFolder::open_skipping_bad(root.path()).is_err(),
        "a missing column is fatal"
    );
}

#[test]
fn history_lengths_and_users_are_held() {
    let root = folder();
    let data = DataFolder::open(root.path()).expect("valid");
    let message = data
        .require_history_length(2)
        .expect_err("v has one")
        .to_string();
    for part in ["histories.jsonl, row 2", "\"v\"", "1 items", "expected 2"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(data.history_of("u").expect("known").reference, 2);
    write(
        &root,
        "histories.jsonl",
        HISTORIES.replace("\"u\"", "\"user-0042\""),
    );
    let data = DataFolder::open(root.path()).expect("valid");
    let message = data
        .history_of("user-042")
        .expect_err("unknown")
        .to_string();
    assert!(message.contains("did you mean \"user-0042\"?"), "{message}");
}

/// A PNG header that promises 60000×60000 pixels, with next to no data behind it.
fn bomb() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        bytes.extend((data.len() as u32).to_be_bytes());
        let body = [kind, data].concat();
        bytes.extend(&body);
        bytes.extend(checksum(&body).to_be_bytes());
    };
    let side = 60_000u32.to_be_bytes();
    chunk(b"IHDR", &[&side[..], &side[..], &[8, 2, 0, 0, 0]].concat());
    chunk(b"IDAT", &[0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01]);
    chunk(b"IEND", &[]);
    bytes
}

/// The cyclic redundancy check of PNG chunks.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                0xedb8_8320 ^ (crc >> 1)
            } else {
                crc >> 1
            };
        }
        crc
    })
}

fn file(name: &str, bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    (root, path)
}

#[test]
fn a_decompression_bomb_is_refused_before_decoding() {
    let (_root, path) = file("bomb.png", bomb());
    let started = std::time::Instant::now();
    let error = decode(&path, &ImageLimits::default()).expect_err("refused");
    assert!(started.elapsed().as_secs() < 5, "nothing was decoded");
    assert!(
        matches!(
            error,
            ImageError::TooLarge {
                width: 60_000,
                height: 60_000,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("bomb.png"));
}

#[test]
fn limits_are_held_by_side_pixels_and_bytes() {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("wide.png");
    RgbImage::new(100, 10).save(&path).expect("a picture");
    let wide = ImageLimits {
        max_side: 100,
        max_pixels: 1000,
        max_file_bytes: 10_000,
    };
    assert!(decode(&path, &wide).is_ok());
    let side = ImageLimits {
        max_side: 99,
        ..wide
    };
    assert!(matches!(
        decode(&path, &side),
        Err(ImageError::TooLarge { .. })
    ));
    let pixels = ImageLimits {
        max_pixels: 999,
        ..wide
    };
    assert!(matches!(
        decode(&path, &pixels),
        Err(ImageError::TooLarge { .. })
    ));
    let bytes = ImageLimits {
        max_file_bytes: 10,
        ..wide
    };
    assert!(matches!(
        decode(&path, &bytes),
        Err(ImageError::FileTooLarge { .. })
    ));
}

#[test]
fn what_is_no_picture_is_said_to_be_none() {
    let (_root, text) = file("text.png", "not a picture at all");
    let error = decode(&text, &ImageLimits::default()).expect_err("text");
    assert!(matches!(error, ImageError::Unrecognised { .. }), "{error}");
    let (_root, empty) = file("empty.png", "");
    let error = decode(&empty, &ImageLimits::default()).expect_err("empty");
    assert!(matches!(error, ImageError::Unrecognised { .. }), "{error}");
    let root = tempfile::tempdir().expect("a folder");
    let error = decode(root.path(), &ImageLimits::default()).expect_err("a folder");
    assert!(matches!(error, ImageError::Unreadable { .. }), "{error}");
    let error = decode(&root.path().join("no.png"), &ImageLimits::default()).expect_err("none");
    assert!(matches!(error, ImageError::Missing { .. }), "{error}");
}

#[test]
fn a_truncated_picture_is_corrupt_and_never_a_panic() {
    let picture = RgbImage::from_fn(32, 32, |x, y| {
        Rgb([x as u8 * 8, y as u8 * 8, (x ^ y) as u8])
    });
    for format in ["png", "jpg", "webp", "gif", "bmp"] {
        let root = tempfile::tempdir().expect("a folder");
        let whole = root.path().join(format!("whole.{format}"));
        picture.save(&whole).expect("a picture");
        assert!(decode(&whole, &ImageLimits::default()).is_ok(), "{format}");
        let bytes = std::fs::read(&whole).expect("bytes");
        for length in (0..bytes.len()).step_by(1 + bytes.len() / 60) {
            let cut = root.path().join("cut");
            std::fs::write(&cut, &bytes[..length]).expect("a file");
            // Some decoders show what arrived; none may panic or hang.
            if let Err(error) = decode(&cut, &ImageLimits::default()) {
                assert!(error.to_string().contains("cut"), "{error}");
            }
        }
        let cut = root.path().join("half.png");
        std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("a file");
        if format == "png" {
            let error = decode(&cut, &ImageLimits::default()).expect_err("half a PNG");
            assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
        }
    }
}

#[test]
fn transparency_becomes_white() {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("glass.png");
    let mut picture = RgbaImage::from_pixel(2, 1, Rgba([10, 20, 30, 0]));
    picture.put_pixel(1, 0, Rgba([0, 0, 0, 128]));
    picture.save(&path).expect("a picture");
    let decoded = decode(&path, &ImageLimits::default()).expect("a picture");
    assert_eq!(decoded.get_pixel(0, 0).0, [255; 3]);
    assert_eq!(decoded.get_pixel(1, 0).0, [127; 3]);
}

#[test]
fn pictures_become_tensors_and_return() {
    let picture = RgbImage::from_fn(5, 3, |x, y| Rgb([x as u8 * 50, y as u8 * 100, 255]));
    let tensor = to_tensor::<TestBackend>(&picture, &device());
    assert_eq!(tensor.dims(), [3, 3, 5]);
    let values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
    assert_eq!(values[0], -1.0);
    assert_eq!(values[30], 1.0, "the blue plane");
    assert!(
        (values[4] - (200.0 / 127.5 - 1.0)).abs() < 1e-6,
        "x runs fastest"
    );
    let other = RgbImage::from_pixel(5, 3, Rgb([1, 2, 3]));
    let batch = to_batch::<TestBackend>(&[&picture, &other], &device());
    assert_eq!(batch.dims(), [2, 3, 3, 5]);
    assert_eq!(to_pictures(batch.clone()), [picture.clone(), other]);
    let wild = batch.mul_scalar(9.0);
    assert_eq!(
        to_pictures(wild)[0].get_pixel(0, 0).0,
        [0, 0, 255],
        "clamped"
    );
}

#[test]
fn clip_preprocessing_normalises_crops_and_resizes() {
    let side = ImagePreprocessing::clip(8);
    let grey = RgbImage::from_pixel(8, 8, Rgb([51; 3]));
    let expected: Vec<f32> = (0..3).map(|c| (0.2 - CLIP_MEAN[c]) / CLIP_STD[c]).collect();
    // A plain picture of any size gives the same plain tensor.
    for picture in [grey.clone(), RgbImage::from_pixel(31, 17, Rgb([51; 3]))] {
        let tensor = side.apply::<TestBackend>(&picture, &device());
        assert_eq!(tensor.dims(), [3, 8, 8]);
        let values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
        for (place, value) in values.iter().enumerate() {
            assert!((value - expected[place / 64]).abs() < 1e-5);
        }
    }
    // A wide picture loses its sides: red on the left never shows.
    let flag = RgbImage::from_fn(
        32,
        8,
        |x, _| if x < 8 { Rgb([255, 0, 0]) } else { Rgb([0; 3]) },
    );
    let values: Vec<f32> = side
        .apply::<TestBackend>(&flag, &device())
        .into_data()
        .iter::<f32>()
        .collect();
    assert!(
        values[..64]
            .iter()
            .all(|v| (v + CLIP_MEAN[0] / CLIP_STD[0]).abs() < 1e-4)
    );
    assert_eq!(side.output_size(17, 31), (8, 8));
}

#[test]
fn drawn_pictures_meet_the_same_preprocessing() {
    for length in [8, 16] {
        let picture = RgbImage::from_fn(length, length, |x, y| {
            Rgb([(x * 15) as u8, (y * 15) as u8, ((x + y) * 7) as u8])
        });
        let preprocessing = ImagePreprocessing::clip(8);
        let drawn = to_batch::<TestBackend>(&[&picture], &device());
        let from_drawn = preprocessing.apply_to_drawn(drawn);
        let from_file = preprocessing.apply_all::<TestBackend>(&[&picture], &device());
        crate::support::compare(
            "drawn",
            &from_file.into_data(),
            &from_drawn.into_data(),
            1e-5,
            0.0,
        );
    }
}

#[test]
fn the_hubs_preprocessor_config_is_read() {
    let text = r#"{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224}"#;
    let (root, _) = file("preprocessor_config.json", text);
    let old = ImagePreprocessing::open(root.path()).expect("the first CLIP file");
    assert_eq!(old.output_size(300, 500), (224, 224));
    let text = text
        .replace("\"size\": 224", "\"size\": {\"shortest_edge\": 224}")
        .replace(
            "\"crop_size\": 224",
            "\"crop_size\": {\"height\": 224, \"width\": 200}",
        );
    let (root, _) = file("preprocessor_config.json", text);
    let new = ImagePreprocessing::open(root.path()).expect("a newer file");
    assert_eq!(new.output_size(300, 500), (224, 200));
    // BLIP-2: an exact size, no crop.
    let (root, _) = file(
        "preprocessor_config.json",
        r#"{"size": {"height": 30, "width": 20}, "image_mean": [0.5,0.5,0.5], "image_std": [0.5,0.5,0.5], "resample": 9}"#,
    );
    let error = ImagePreprocessing::open(root.path()).expect_err("no such filter");
    assert!(
        matches!(
            error,
            PreprocessError::Field {
                field: "resample",
                ..
            }
        ),
        "{error}"
    );
    assert!(ImagePreprocessing::open(Path::new("/nowhere")).is_err());
}

#[test]
fn interactions_split_by_time_within_each_user() {
    let interactions: Vec<Interaction> = (0..10)
        .rev()
        .map(|t| ("busy", t))
        .chain([("rare", 1), ("rare", 2)])
        .map(|(user, t)| Interaction {
            user: user.into(),
            item: t as usize,
            timestamp: t,
        })
        .collect();
    let split = by_time(&interactions, 0.1, 0.2);
    let times = |part: &[Interaction], user: &str| -> Vec<i64> {
        part.iter()
            .filter(|i| i.user == user)
            .map(|i| i.timestamp)
            .collect()
    };
    assert_eq!(times(&split.train, "busy"), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(times(&split.validation, "busy"), [7]);
    assert_eq!(times(&split.test, "busy"), [8, 9]);
    assert_eq!(times(&split.train, "rare"), [1, 2]);
    let all = by_time(&interactions, 0.5, 1.0);
    assert_eq!(
        times(&all.train, "busy").len(),
        1,
        "something is left to train on"
    );
}

#[test]
fn users_without_a_split_get_one() {
    let line = |user: &str, split| History {
        user: user.into(),
        history: vec![0],
        reference: 1,
        target: None,
        split,
    };
    let mut histories: Vec<History> = (0..20)
        .flat_map(|n| [line(&format!("u{n}"), None), line(&format!("u{n}"), None)])
        .collect();
    histories[0].split = Some(Split::Test);
    let mut again = histories.clone();
    assign_missing(&mut histories, 0.1, 0.2, 4);
    assign_missing(&mut again, 0.1, 0.2, 4);
    assert_eq!(histories, again);
    for pair in histories.chunks(2) {
        assert!(pair[0].split.is_some());
        assert_eq!(pair[0].split, pair[1].split, "one user, one split");
    }
    assert_eq!(
        histories[1].split,
        Some(Split::Test),
        "as the user's other line says"
    );
    let count = |split| histories.iter().filter(|h| h.split == Some(split)).count() / 2;
    assert_eq!((count(Split::Validation), count(Split::Test)), (2, 5));
}

#[test]
fn clip_preprocessing_agrees_with_the_reference() {
    let golden = crate::support::Golden::open("image-preprocess");
    for name in ["wide", "tall"] {
        let input = golden.data(&format!("input.{name}"));
        let [height, width, _] = input.shape.to_vec()[..] else {
            panic!("height, width, channels")
        };
        let values: Vec<u8> = input.iter::<f32>().map(|value| value as u8).collect();
        let picture = RgbImage::from_raw(width as u32, height as u32, values).expect("a picture");
        let preprocessing = ImagePreprocessing::clip(24);
        let ours = preprocessing.apply::<TestBackend>(&picture, &device());
        // Pillow rounds to whole values and clips between its two passes: at hard edges two or three of 255 values
        // apart, elsewhere nearly equal.
        let level = 1.0 / 255.0 / 0.26;
        let expected = golden.data(&format!("output.{name}"));
        let ours = ours.into_data();
        crate::support::compare(name, &expected, &ours, 3.0 * level, 0.0);
        let total: f32 = expected
            .iter::<f32>()
            .zip(ours.iter::<f32>())
            .map(|(expected, ours)| (expected - ours).abs())
            .sum();
        let mean = total / expected.num_elements() as f32;
        assert!(mean < 0.5 * level, "{name}: {mean} apart on average");
    }
}
