//! The shipped sticker set leaks nothing, and the sticker language says what it should.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use ragar::data::folder::DataError;
use ragar::data::history::{History, Split};
use ragar::data::image::ImageLimits;
use ragar::data::stickers::held_out::{self, Pair};
use ragar::data::stickers::language::{named_label, named_style, preference_variant, with_article};
use ragar::data::stickers::packages::{IconSet, NOTO, hexcode};
use ragar::data::stickers::users::{self, UserOptions};
use ragar::data::stickers::{
    GROUPS, Sticker, StickerError, StickerOptions, Stickers, Style, build, caption,
    caption_variant, item_text, keyword_answer, render,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn shipped() -> Stickers {
    Stickers::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stickers"))
        .expect("the shipped stickers are valid")
}

fn hamburger() -> Sticker {
    Sticker {
        item: 0,
        glyph: "1f354".into(),
        label: "hamburger".into(),
        tags: vec!["beef".into(), "burger".into(), "hungry".into()],
        group: "food".into(),
        style: Style::Glossy,
        held_out: false,
    }
}

/// Panics when anything held out can be seen in training, or a test answer is not held out.
fn assert_no_leak(stickers: &[Sticker], histories: &[History]) {
    let held_out = |item: usize| stickers[item].held_out;
    let mut targets: BTreeMap<Split, HashSet<usize>> = BTreeMap::new();
    for user in histories {
        let split = user.split.expect("every user has a split");
        let target = user.target.expect("every user has a target");
        let name = &user.user;
        assert!(
            !user.history.iter().any(|&item| held_out(item)),
            "{name}: a held-out item in the history"
        );
        assert!(
            !held_out(user.reference),
            "{name}: the reference is held out"
        );
        assert_eq!(
            held_out(target),
            split != Split::Train,
            "{name}: the target of a {} user",
            split.name()
        );
        let (wanted, reference) = (&stickers[target], &stickers[user.reference]);
        assert_eq!(wanted.glyph, reference.glyph, "{name}: another glyph");
        assert_ne!(
            wanted.style, reference.style,
            "{name}: nothing to personalise"
        );
        for &item in &user.history {
            assert_ne!(
                stickers[item].glyph, wanted.glyph,
                "{name}: the glyph was seen"
            );
        }
        targets.entry(split).or_default().insert(target);
    }
    assert!(
        targets[&Split::Validation].is_disjoint(&targets[&Split::Test]),
        "tuning must not see test targets"
    );
}

#[test]
fn the_shipped_set_leaks_nothing() {
    let set = shipped();
    assert_no_leak(&set.stickers, &set.folder.histories);
    let interacted: HashSet<usize> = set.folder.interactions.iter().map(|i| i.item).collect();
    assert!(
        !interacted.iter().any(|&item| set.stickers[item].held_out),
        "the ranking model would see a held-out item"
    );
    assert!(set.training().all(|sticker| !sticker.held_out));
    assert_eq!(set.training().count() + set.held_out().count(), set.len());
}

#[test]
fn a_leak_would_be_noticed() {
    let set = shipped();
    let held_out = set.held_out().next().expect("some are held out").item;
    let mut histories = set.folder.histories.clone();
    histories[0].history[3] = held_out;
    assert!(std::panic::catch_unwind(|| assert_no_leak(&set.stickers, &histories)).is_err());
}

#[test]
fn the_shipped_set_is_what_it_says() {
    let set = shipped();
    let glyphs = set.glyphs();
    assert!((240..=260).contains(&glyphs.len()), "{}", glyphs.len());
    assert_eq!(set.groups().len(), GROUPS.len());
    assert!(set.groups().iter().all(|group| GROUPS.contains(group)));
    assert_eq!(set.labels().len(), glyphs.len(), "one label a glyph");
    for glyph in glyphs {
        let visible = set.training().filter(|s| s.glyph == glyph).count();
        assert!(visible >= 2, "{glyph}: {visible} styles in training");
        for style in [Style::Flat, Style::Glossy, Style::Cartoon, Style::Shaded] {
            assert!(set.find(glyph, style).is_some(), "{glyph} in {style}");
        }
    }
    for style in Style::ALL {
        let all = set.stickers.iter().filter(|s| s.style == style).count();
        let held_out = set.held_out().filter(|s| s.style == style).count();
        let share = held_out as f64 / all as f64;
        assert!((0.07..=0.13).contains(&share), "{style}: {share}");
    }
    let counts = Split::ALL.map(|split| set.users(split).count());
    assert_eq!(counts, [1500, 200, 300]);
    let users: BTreeSet<&str> = set
        .folder
        .histories
        .iter()
        .map(|history| history.user.as_str())
        .collect();
    assert_eq!(users.len(), 2000, "nobody is in two splits");
    set.folder
        .require_history_length(20)
        .expect("histories of twenty");
    // The interactions are the histories, in order.
    for (number, history) in set.folder.histories.iter().enumerate().step_by(97) {
        let own = &set.folder.interactions[number * 20..(number + 1) * 20];
        assert!(own.iter().all(|i| i.user == history.user));
        assert!(own.windows(2).all(|w| w[0].timestamp < w[1].timestamp));
        let items: Vec<usize> = own.iter().map(|i| i.item).collect();
        assert_eq!(items, history.history);
    }
}

#[test]
fn every_shipped_picture_opens() {
    let set = shipped();
    let images = set
        .load_images(&ImageLimits::default())
        .expect("every picture opens");
    let mut bytes = 0;
    for (image, item) in images.iter().zip(&set.folder.catalogue) {
        assert_eq!(image.dimensions(), (render::SIDE, render::SIDE));
        for (x, y) in [(0, 0), (63, 0), (0, 63), (63, 63)] {
            assert_eq!(image.get_pixel(x, y).0, [255; 3], "{}: corner", item.id);
        }
        bytes += std::fs::metadata(&item.image).expect("a file").len();
    }
    assert!(bytes < 6_000_000, "{bytes} bytes of pictures");
}

#[test]
fn most_of_a_history_is_of_two_themes() {
    let set = shipped();
    let mut themed = 0usize;
    for user in &set.folder.histories {
        let mut counts: BTreeMap<(Style, &str), usize> = BTreeMap::new();
        for &item in &user.history {
            let sticker = &set.stickers[item];
            *counts.entry((sticker.style, &sticker.group)).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let [(first, a), (second, b)] = [counts[0], counts[1]];
        assert_ne!(first.0, second.0, "{}: two styles", user.user);
        assert_ne!(first.1, second.1, "{}: two groups", user.user);
        themed += a + b;
        let wanted = &set.stickers[user.target.expect("a target")];
        assert!([first, second].contains(&(wanted.style, wanted.group.as_str())));
        let reference = set.stickers[user.reference].style;
        assert!(![first.0, second.0].contains(&reference), "a third style");
    }
    let share = themed as f64 / (20 * set.folder.histories.len()) as f64;
    assert!(
        (0.88..=0.92).contains(&share),
        "noise rate 0.1, got {share}"
    );
}

#[test]
fn users_follow_from_the_seed() {
    let set = shipped();
    let options = UserOptions {
        num_train: 20,
        num_validation: 5,
        num_test: 5,
        ..UserOptions::default()
    };
    let invent = |seed| users::invent(&set.stickers, &options, seed).expect("enough stickers");
    assert_eq!(invent(1), invent(1));
    assert_ne!(invent(1), invent(2));
    assert_no_leak(&set.stickers, &invent(3));
    let pure = UserOptions {
        noise_rate: 0.0,
        ..options.clone()
    };
    for user in users::invent(&set.stickers, &pure, 1).expect("enough stickers") {
        let themes: BTreeSet<_> = user
            .history
            .iter()
            .map(|&item| (set.stickers[item].style, &set.stickers[item].group))
            .collect();
        assert_eq!(themes.len(), 2, "no strays without noise");
    }
    let few: Vec<Sticker> = set.stickers.iter().take(30).cloned().collect();
    let error = users::invent(&few, &options, 1).expect_err("too few");
    assert!(matches!(error, StickerError::TooFew { .. }), "{error}");
}

#[test]
fn held_out_pairs_are_even_and_leave_two_styles() {
    let glyphs: Vec<String> = (0..60).map(|n| format!("g{n}")).collect();
    let pairs: Vec<Pair<'_>> = glyphs
        .iter()
        .enumerate()
        .flat_map(|(n, glyph)| {
            let group = ["animal", "food", "face"][n % 3];
            // Every tenth glyph exists in two styles only.
            let styles = if n % 10 == 0 { 2 } else { 5 };
            Style::ALL[..styles].iter().map(move |&style| Pair {
                glyph,
                group,
                style,
            })
        })
        .collect();
    let marked = held_out::choose(&pairs, 0.1, 7);
    assert_eq!(marked, held_out::choose(&pairs, 0.1, 7));
    assert_ne!(marked, held_out::choose(&pairs, 0.1, 8));
    let count = marked.iter().filter(|m| **m).count();
    assert_eq!(count, (pairs.len() as f64 * 0.1).round() as usize);
    for glyph in &glyphs {
        let visible = pairs
            .iter()
            .zip(&marked)
            .filter(|(pair, marked)| pair.glyph == glyph && !**marked)
            .count();
        assert!(visible >= 2, "{glyph}");
    }
}

#[test]
fn captions_name_style_label_and_group() {
    let sticker = hamburger();
    assert_eq!(
        caption(&sticker),
        "a glossy 3d sticker of a hamburger, food"
    );
    assert_eq!(keyword_answer(&sticker), "3d food, hamburger, beef");
    assert_eq!(
        item_text(&sticker.label, &sticker.group, &sticker.tags),
        "hamburger, food, beef, burger"
    );
    let articles = [
        ("apple", "an apple"),
        ("bus", "a bus"),
        ("dress", "a dress"),
        ("grapes", "grapes"),
        ("hourglass", "an hourglass"),
        ("octopus", "an octopus"),
        ("sunglasses", "sunglasses"),
        ("umbrella", "an umbrella"),
        ("unicorn", "a unicorn"),
    ];
    for (label, expected) in articles {
        assert_eq!(with_article(label), expected);
    }
}

#[test]
fn what_a_caption_names_can_be_read_back() {
    let set = shipped();
    let labels = set.labels();
    for sticker in &set.stickers {
        let text = caption(sticker);
        assert_eq!(named_style(&text), Some(sticker.style), "{text}");
        assert_eq!(
            named_label(&text, labels.iter().copied()),
            Some(sticker.label.as_str()),
            "{text}"
        );
    }
    assert_eq!(named_style("a sticker of a flatfish"), None);
    assert_eq!(named_label("a carpet", ["car", "pet"]), None);
    assert_eq!(
        named_label("a hot dog, food", ["dog", "hot dog"]),
        Some("hot dog")
    );
}

#[test]
fn caption_variants_are_a_seeded_mixture() {
    let sticker = hamburger();
    let draw = |seed| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..400)
            .map(|_| caption_variant(&sticker, &mut rng))
            .collect::<Vec<_>>()
    };
    let variants = draw(5);
    assert_eq!(variants, draw(5));
    let share = |wanted: &dyn Fn(&str) -> bool| {
        variants.iter().filter(|text| wanted(text)).count() as f64 / 400.0
    };
    let canonical = caption(&sticker);
    assert!((0.3..0.5).contains(&share(&|text| text == canonical)));
    for form in [
        "a glossy 3d sticker of a hamburger",
        "a sticker of a hamburger",
        "a sticker of a hamburger, food",
        "hamburger, food",
        "hamburger, food, beef, burger",
        "3d food, hamburger",
        "3d food, hamburger, beef",
    ] {
        assert!(share(&|text| text == form) > 0.0, "{form} never drawn");
    }
    assert!(variants.iter().all(|text| text.contains("hamburger")));
    // What says a style of food says the right one.
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..100 {
        let text = preference_variant(&sticker, &mut rng);
        let phrases: Vec<&str> = text.split(", ").collect();
        let themes: Vec<&&str> = phrases.iter().filter(|p| p.contains(' ')).collect();
        assert!(themes.contains(&&"3d food"), "{text}");
        assert!((2..=3).contains(&themes.len()), "{text}");
        assert!(
            themes
                .iter()
                .all(|p| **p == "3d food" || !(p.starts_with("3d ") || p.ends_with(" food"))),
            "{text}"
        );
    }
}

#[test]
fn drawings_are_centred_at_one_scale() {
    for (width, height) in [(40, 40), (90, 30), (20, 80)] {
        let svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" width="100" height="100"><rect x="3" y="7" width="{width}" height="{height}" fill="#ff0000"/></svg>"##
        );
        let picture =
            render::normalise(&render::rasterise(&svg).expect("an SVG")).expect("something red");
        let inked: Vec<(u32, u32)> = picture
            .enumerate_pixels()
            .filter(|(_, _, pixel)| pixel.0[1] < 128)
            .map(|(x, y, _)| (x, y))
            .collect();
        let range = |values: Vec<u32>| {
            (
                *values.iter().min().expect("ink"),
                *values.iter().max().expect("ink"),
            )
        };
        let (left, right) = range(inked.iter().map(|p| p.0).collect());
        let (top, bottom) = range(inked.iter().map(|p| p.1).collect());
        let longer = (right - left + 1).max(bottom - top + 1);
        assert!(longer.abs_diff(render::EXTENT) <= 1, "{longer}");
        assert!((left).abs_diff(63 - right) <= 1 && top.abs_diff(63 - bottom) <= 1);
    }
    let empty = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>"#;
    assert!(
        render::rasterise(empty)
            .and_then(|d| render::normalise(&d))
            .is_err()
    );
    assert!(render::rasterise("no svg").is_err());
}

#[test]
fn pictures_survive_their_encoding() {
    let few = image::RgbImage::from_fn(64, 64, |x, y| {
        image::Rgb([(x / 16 * 60) as u8, (y / 16 * 60) as u8, 7])
    });
    let many = image::RgbImage::from_fn(64, 64, |x, y| {
        image::Rgb([(x * 4) as u8, (y * 4) as u8, (x * y) as u8])
    });
    for picture in [few, many] {
        let bytes = render::encode_png(&picture).expect("a PNG");
        let back = image::load_from_memory(&bytes).expect("the same PNG");
        assert_eq!(back.to_rgb8(), picture);
    }
}

/// Writes a miniature package in the layout of an npm install.
fn write_package(root: &Path, name: &str, files: &[(&str, &str)]) {
    let folder = root.join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("package.json"), r#"{"version":"9.9.9"}"#).expect("a file");
    for (file, text) in files {
        std::fs::write(folder.join(file), text).expect("a file");
    }
}

#[test]
fn icons_resolve_aliases_and_flips() {
    let root = tempfile::tempdir().expect("a folder");
    write_package(
        root.path(),
        NOTO.name,
        &[
            (
                "icons.json",
                r##"{"prefix":"noto","width":10,"height":10,
                 "icons":{"left":{"body":"<rect width='4' height='10' fill='#000'/>"}},
                 "aliases":{"right":{"parent":"left","hFlip":true},
                            "again":{"parent":"right","hFlip":true},
                            "loop":{"parent":"loop"}}}"##,
            ),
            ("chars.json", r#"{"2764-fe0f":"left"}"#),
        ],
    );
    let package = NOTO.find(root.path()).expect("found by its npm name");
    assert_eq!(package.version, "9.9.9");
    let icons = IconSet::open(&package).expect("an icon set");
    assert_eq!(icons.name(&hexcode("2764-FE0F")), Some("left"));
    let ink_left = |name: &str| {
        let drawing = render::rasterise(&icons.svg(name).expect("an icon")).expect("drawn");
        drawing.get_pixel(5, 128).0[3] > 0
    };
    assert!(ink_left("left"));
    assert!(!ink_left("right"));
    assert!(ink_left("again"));
    assert!(icons.svg("loop").is_none());
    assert!(icons.svg("absent").is_none());
}

#[test]
fn a_missing_package_names_its_command() {
    let root = tempfile::tempdir().expect("a folder");
    let options = StickerOptions {
        packages: root.path().to_path_buf(),
        output: root.path().join("out"),
        ..StickerOptions::default()
    };
    let message = build(&options).expect_err("nothing is there").to_string();
    assert!(message.contains("emojibase-data"), "{message}");
    assert!(
        message.contains("npm pack emojibase-data@17.0.0"),
        "{message}"
    );
    assert!(!options.output.exists());
}

#[test]
fn a_folder_that_is_not_ours_is_never_replaced() {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::write(root.path().join("thesis.txt"), "years of work").expect("a file");
    let options = StickerOptions {
        output: root.path().to_path_buf(),
        ..StickerOptions::default()
    };
    let message = build(&options).expect_err("refused").to_string();
    assert!(message.contains("output"), "{message}");
    assert!(root.path().join("thesis.txt").exists());
}

#[test]
fn options_out_of_range_are_named() {
    let bad = StickerOptions {
        held_out: 0.9,
        ..StickerOptions::default()
    };
    let message = bad.validate().expect_err("too much").to_string();
    assert!(
        message.contains("held_out") && message.contains("0.9"),
        "{message}"
    );
    let parsed: Result<StickerOptions, _> = toml::from_str("held_oot = 0.1");
    assert!(parsed.is_err(), "unknown keys are refused");
}

#[test]
fn sticker_rows_are_checked() {
    let root = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(root.path().join(name), text).expect("a file");
    };
    write("items.csv", "item_id,image,text\na,a.png,x\nb,b.png,y\n");
    write("interactions.csv", "user_id,item_id,timestamp\nu,a,1\n");
    write(
        "histories.jsonl",
        "{\"user\":\"u\",\"history\":[\"a\"],\"reference\":\"b\"}\n",
    );
    let header = "item_id,glyph,label,tags,group,style,held_out\n";
    let cases = [
        ("a,1,x,,food,flat,false\n", "\"b\" has no row"),
        (
            "a,1,x,,food,flat,false\nb,1,x,,food,oil,false\n",
            "row 3, style",
        ),
        ("a,1,x,,food,flat,perhaps\n", "row 2, held_out"),
        (
            "a,1,x,,food,flat,false\na,1,x,,food,flat,false\n",
            "row 3, item_id",
        ),
        ("c,1,x,,food,flat,false\n", "row 2, item_id"),
    ];
    for (rows, expected) in cases {
        write("stickers.csv", &format!("{header}{rows}"));
        let message = Stickers::open(root.path())
            .expect_err("a fault")
            .to_string();
        assert!(message.contains(expected), "{message}");
    }
    write(
        "stickers.csv",
        &format!("{header}b,1,x,p;q,food,3d,true\na,1,x,,food,flat,false\n"),
    );
    let set = Stickers::open(root.path()).expect("now it is right");
    assert_eq!(set.stickers[0].style, Style::Flat, "in catalogue order");
    assert_eq!(set.stickers[1].tags, ["p", "q"]);
    let error = set.folder.history_of("v").expect_err("no such user");
    assert!(matches!(error, DataError::UnknownUser { .. }), "{error}");
}
