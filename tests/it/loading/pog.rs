//! POG: three files without header lines.

use std::collections::BTreeSet;

use ragar::data::loading::pog::{PogOptions, load};

use super::{Bench, assert_refused, history, ids, read};

fn source(bench: &Bench) -> PogOptions {
    bench.write(
        "pog/item_data.txt",
        "i1,50,//img.alicdn.com/a/i1.jpg,夏季新款 连衣裙, 女\n\
         i2,50,https://img.alicdn.com/i2.png,裙子\r\n\
         i3,51,img.alicdn.com/i3.jpg,\n\
         i4,51,,没有图片\n\
         i5,52,null,none\n\
         i6,52,//img.alicdn.com/a/i1.jpg,same picture\n\
         i7,52,http://img.alicdn.com/i7.jpg,unmet\n",
    );
    bench.write(
        "pog/user_data.txt",
        "u1,i1;i2;i3;i4,o1\nu2,i3;i2;i2;i1;i6,o2\nu3,i1,o1\n\nu1,i6;i1,o2\n",
    );
    bench.write("pog/outfit_data.txt", "o1,i6;i7\no2,i1;i2\n");
    let mut options = PogOptions {
        source: bench.path("pog"),
        num_users: 0,
        items_per_user: 0,
        ..PogOptions::default()
    };
    options.load.selection.history_length = 2;
    options
}

#[test]
fn sequences_become_histories_and_addresses_are_completed() {
    let bench = Bench::new();
    let report = load(&source(&bench), &bench.out()).expect("loads");
    let data = bench.data();
    // i7 was met by nobody, i4 and i5 have no picture.
    let items: Vec<&str> = data.catalogue.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(items, ["i1", "i2", "i3", "i6"]);
    assert_eq!(data.catalogue[0].text, "夏季新款 连衣裙, 女");
    assert_eq!(
        data.catalogue[0].image, data.catalogue[3].image,
        "one address, one picture"
    );
    assert_eq!(ids(&data, 0), (vec!["i2".into(), "i3".into()], "i6".into()));
    assert_eq!(ids(&data, 1), (vec!["i2".into(), "i1".into()], "i6".into()));
    assert_eq!(data.histories.len(), 2);
    assert_eq!(report.left_out.items_without_picture, 1);
    assert_eq!(report.num_items_without_text, 1);
    assert_eq!(report.pictures.to_fetch, 3);
    assert_eq!(report.left_out.users_without_history, 1);
    let table = read(&bench.out().join("items.csv"));
    for address in [
        "https://img.alicdn.com/a/i1.jpg",
        "https://img.alicdn.com/i3.jpg",
    ] {
        assert!(table.contains(address), "{table}");
    }
    assert!(table.starts_with("item_id,image,text,url,category\n"));
    assert!(report.to_string().contains("ragar data pictures"));
}

#[test]
fn outfits_count_when_asked_for() {
    let bench = Bench::new();
    let mut options = source(&bench);
    options.outfits = true;
    load(&options, &bench.out()).expect("loads");
    let data = bench.data();
    // u3 clicked i1, and the outfit of i6 and i7.
    let third = data
        .histories
        .iter()
        .position(|history| history.user == "u3")
        .expect("u3");
    assert_eq!(
        ids(&data, third),
        (vec!["i1".into(), "i6".into()], "i7".into())
    );
    bench.write("pog/outfit_data.txt", "o1,i6;i7\n");
    assert_refused(
        load(&options, &bench.out()),
        &["user_data.txt, row 2", "\"o2\"", "outfit_data.txt"],
    );
    std::fs::remove_file(bench.path("pog/outfit_data.txt")).expect("removed");
    assert_refused(
        load(&options, &bench.out()),
        &["outfit_data.txt", "no such file"],
    );
}

#[test]
fn users_are_drawn_by_the_seed_whatever_the_order() {
    let bench = Bench::new();
    let items: String = (0..30)
        .map(|n| format!("i{n},1,//x.org/{n}.jpg,t\n"))
        .collect();
    bench.write("pog/item_data.txt", items);
    let line = |user: usize| {
        let items: Vec<String> = (0..5)
            .map(|n| format!("i{}", (user + 7 * n) % 30))
            .collect();
        format!("u{user},{},o\n", items.join(";"))
    };
    let mut lines: Vec<String> = (0..40).map(line).collect();
    lines.push("short,i1;i2;i1,o\n".into());
    bench.write("pog/user_data.txt", lines.concat());
    let mut options = PogOptions {
        source: bench.path("pog"),
        num_users: 10,
        items_per_user: 3,
        load: history(2),
        ..PogOptions::default()
    };
    let users = |options: &PogOptions| -> BTreeSet<String> {
        load(options, &bench.out()).expect("loads");
        let data = bench.data();
        assert_eq!(data.interactions.len(), 30, "the newest three of each");
        data.histories
            .into_iter()
            .map(|history| history.user)
            .collect()
    };
    let drawn = users(&options);
    assert_eq!(drawn.len(), 10);
    assert!(!drawn.contains("short"));
    lines.reverse();
    bench.write("pog/user_data.txt", lines.concat());
    assert_eq!(users(&options), drawn);
    options.load.selection.seed += 1;
    assert_ne!(users(&options), drawn);
    options.load.selection.history_length = 6;
    assert_refused(
        load(&options, &bench.out()),
        &["7 items", "--history", "--users 0"],
    );
}

#[test]
fn faults_are_named_with_file_and_row() {
    let cases: [(&str, &[u8], &[&str]); 7] = [
        (
            "user_data.txt",
            b"u1,i1;i2;i3;unknown,o1\n",
            &["user_data.txt, row 1", "\"unknown\""],
        ),
        (
            "user_data.txt",
            b"u1,i1;i2;i3,o1\nu2 i1;i2\n",
            &["user_data.txt, row 2", "1 fields, expected 3"],
        ),
        ("user_data.txt", b",i1;i2;i3,o1\n", &["row 1", "no name"]),
        ("user_data.txt", b"", &["user_data.txt", "empty"]),
        (
            "item_data.txt",
            b"i1,50,//a.org/x.jpg\n",
            &["item_data.txt, row 1", "3 fields, expected 4"],
        ),
        (
            "item_data.txt",
            b"i1,50,ftp://a.org/x.jpg,t\n",
            &["item_data.txt, row 1, pic_url", "http"],
        ),
        (
            "item_data.txt",
            b"i1,50,//a.org/x.jpg,caf\xe9\n",
            &["item_data.txt, row 1", "UTF-8", "--encoding"],
        ),
    ];
    for (file, bytes, words) in cases {
        let bench = Bench::new();
        let options = source(&bench);
        bench.write(&format!("pog/{file}"), bytes);
        assert_refused(load(&options, &bench.out()), words);
        bench.assert_untouched();
    }
}

#[test]
fn a_fault_met_in_both_readings_counts_once() {
    let bench = Bench::new();
    let mut options = source(&bench);
    options.num_users = 2;
    options.load.skip_bad = true;
    let text = read(&bench.path("pog/user_data.txt"));
    bench.write("pog/user_data.txt", format!("{text}broken\n"));
    let report = load(&options, &bench.out()).expect("loads");
    assert_eq!(report.num_bad_rows, 1, "{:?}", report.bad_rows);
    assert_eq!(report.num_histories, 2);
}
