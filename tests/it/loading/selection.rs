//! What all loaders share: filters, histories, and what may be overwritten.

use std::collections::BTreeSet;

use ragar::data::loading::table::{TableOptions, load};

use super::{Bench, assert_refused, history, ids, read};

fn options(bench: &Bench) -> TableOptions {
    TableOptions {
        interactions: bench.path("clicks.csv"),
        items: Some(bench.path("items.csv")),
        load: history(1),
        ..TableOptions::default()
    }
}

/// `meetings` are pairs of user and item, one after the other.
fn write(bench: &Bench, meetings: &[(&str, &str)]) {
    let items: BTreeSet<&str> = meetings.iter().map(|(_, item)| *item).collect();
    let items: String = items
        .iter()
        .map(|item| format!("{item},t,//x.org/{item}\n"))
        .collect();
    bench.write(
        "items.csv",
        format!("item,text,url\n{items}untouched,t,//x.org/u\n"),
    );
    let clicks: String = meetings
        .iter()
        .map(|(user, item)| format!("{user},{item}\n"))
        .collect();
    bench.write("clicks.csv", format!("user,item\n{clicks}"));
}

#[test]
fn a_core_is_kept_until_nothing_changes() {
    let bench = Bench::new();
    // Without c's single item user c has one left; without user c, item z has one; then user d goes.
    write(
        &bench,
        &[
            ("a", "x"),
            ("a", "y"),
            ("b", "x"),
            ("b", "y"),
            ("c", "lone"),
            ("c", "z"),
            ("d", "z"),
            ("d", "x"),
        ],
    );
    let mut options = options(&bench);
    options.load.selection.min_user = 2;
    options.load.selection.min_item = 2;
    let report = load(&options, &bench.out()).expect("loads");
    let data = bench.data();
    let items: Vec<&str> = data.catalogue.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(items, ["x", "y"]);
    let users: BTreeSet<&str> = data
        .interactions
        .iter()
        .map(|one| one.user.as_str())
        .collect();
    assert_eq!(users, ["a", "b"].into());
    assert_eq!(
        (
            report.left_out.users_by_selection,
            report.left_out.items_by_selection
        ),
        (2, 3)
    );
    options.load.selection.min_user = 3;
    assert_refused(
        load(&options, &bench.out()),
        &["nothing is left", "--min-user"],
    );
}

#[test]
fn items_that_nobody_met_stay_unless_asked_otherwise() {
    let bench = Bench::new();
    write(&bench, &[("a", "x"), ("a", "y"), ("solo", "x")]);
    let mut options = options(&bench);
    let report = load(&options, &bench.out()).expect("loads");
    let data = bench.data();
    assert!(data.catalogue.position("untouched").is_some());
    assert_eq!(
        data.interactions.len(),
        3,
        "a user with one interaction still trains the ranking model"
    );
    assert_eq!(
        (data.histories.len(), report.left_out.users_without_history),
        (1, 1)
    );
    options.load.selection.min_item = 1;
    load(&options, &bench.out()).expect("loads");
    assert!(bench.data().catalogue.position("untouched").is_none());
}

#[test]
fn users_can_be_drawn() {
    let bench = Bench::new();
    let names: Vec<String> = (0..20).map(|n| format!("u{n:02}")).collect();
    let mut meetings: Vec<(&str, &str)> = names
        .iter()
        .flat_map(|name| [(name.as_str(), "x"), (name.as_str(), "y")])
        .collect();
    meetings.push(("short", "x"));
    write(&bench, &meetings);
    let mut options = options(&bench);
    options.load.selection.max_users = 5;
    let drawn = |options: &TableOptions| -> Vec<String> {
        load(options, &bench.out()).expect("loads");
        let data = bench.data();
        assert_eq!(data.interactions.len(), 10);
        data.histories
            .into_iter()
            .map(|history| history.user)
            .collect()
    };
    let first = drawn(&options);
    assert_eq!(first.len(), 5);
    assert_eq!(drawn(&options), first);
    options.load.selection.seed = 1;
    assert_ne!(drawn(&options), first);
}

#[test]
fn equal_times_keep_the_order_of_the_rows() {
    let bench = Bench::new();
    write(&bench, &[("a", "x"), ("a", "y"), ("a", "z")]);
    bench.write("clicks.csv", "user,item,time\na,z,5\na,y,5\na,x,5\na,z,1\n");
    let mut options = options(&bench);
    options.load.selection.history_length = 2;
    load(&options, &bench.out()).expect("loads");
    let data = bench.data();
    assert_eq!(
        ids(&data, 0),
        (vec!["z".into(), "y".into()], "x".into()),
        "z counts at its first time"
    );
    options.load.selection.history_length = 0;
    assert_refused(load(&options, &bench.out()), &["--history", "at least 1"]);
}

#[test]
fn only_an_earlier_output_of_the_same_command_is_replaced() {
    let bench = Bench::new();
    write(&bench, &[("a", "x"), ("a", "y")]);
    let options = options(&bench);
    bench.write("out/precious.txt", "mine");
    assert_refused(
        load(&options, &bench.out()),
        &["out", "not empty", "ragar data table"],
    );
    assert_eq!(read(&bench.path("out/precious.txt")), "mine");
    bench.write(
        "out/manifest.json",
        "{\"format\": \"ragar data 1\", \"loader\": \"pog\"}",
    );
    assert_refused(load(&options, &bench.out()), &["not empty"]);
    std::fs::remove_dir_all(bench.out()).expect("removed");
    std::fs::create_dir(bench.out()).expect("an empty folder");
    load(&options, &bench.out()).expect("an empty folder is free");
    // A picture fetched meanwhile is taken over; anything else goes.
    let image = bench.data().catalogue[0].image.clone();
    std::fs::create_dir_all(image.parent().expect("a folder")).expect("a folder");
    bench.picture("red.png");
    std::fs::rename(bench.path("red.png"), &image).expect("moved");
    let bytes = std::fs::read(&image).expect("a picture");
    bench.write("out/stale.txt", "old");
    let report = load(&options, &bench.out()).expect("an earlier output is replaced");
    assert_eq!((report.pictures.kept, report.pictures.to_fetch), (1, 2));
    assert_eq!(std::fs::read(&image).expect("still there"), bytes);
    assert!(!bench.path("out/stale.txt").exists());
    // A file is no folder.
    bench.write("file", "text");
    assert_refused(load(&options, &bench.path("file")), &["file", "not empty"]);
    let left = std::fs::read_dir(bench.root.path()).expect("the folder");
    let staging = left.filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().starts_with(".ragar")
    });
    assert_eq!(staging.count(), 0);
}

#[test]
fn a_source_inside_the_output_is_not_thrown_away() {
    let bench = Bench::new();
    write(&bench, &[("a", "x"), ("a", "y")]);
    let mut options = options(&bench);
    load(&options, &bench.out()).expect("loads");
    options.images = Some(bench.path("out/images"));
    assert_refused(load(&options, &bench.out()), &["out", "would be replaced"]);
    assert!(bench.path("out/items.csv").is_file());
}
