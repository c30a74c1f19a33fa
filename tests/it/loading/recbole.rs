//! RecBole's atomic files.

use ragar::data::loading::WithoutPicture;
use ragar::data::loading::recbole::{RecBoleOptions, load};

use super::{Bench, assert_refused, history, ids, read};

const INTER: &str = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n\
    196\t242\t3\t881250949\n196\t302\t5\t881250950.5\n196\t51\t1\t8.81250951E8\n22\t242\t4\t1\n";
const ITEM: &str = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n\
    242\t\"Kolya\", a film\t1996\tComedy\n302\tL.A. Confidential\t1997\tCrime Film-Noir\n51\tLegends of the Fall\t1994\tDrama Romance\n";

fn source(bench: &Bench) -> RecBoleOptions {
    bench.write("ml-100k/ml-100k.inter", INTER);
    bench.write("ml-100k/ml-100k.item", ITEM);
    let mut load = history(2);
    load.selection.without_picture = WithoutPicture::Blank;
    RecBoleOptions {
        source: bench.path("ml-100k"),
        load,
        ..RecBoleOptions::default()
    }
}

#[test]
fn fields_are_found_by_name_and_type() {
    let bench = Bench::new();
    load(&source(&bench), &bench.out()).expect("loads");
    let data = bench.data();
    let texts: Vec<&str> = data
        .catalogue
        .iter()
        .map(|item| item.text.as_str())
        .collect();
    assert_eq!(
        texts,
        [
            "\"Kolya\", a film, Comedy",
            "L.A. Confidential, Crime Film-Noir",
            "Legends of the Fall, Drama Romance"
        ]
    );
    assert_eq!(
        ids(&data, 0),
        (vec!["242".into(), "302".into()], "51".into())
    );
    let times: Vec<i64> = data.interactions.iter().map(|one| one.timestamp).collect();
    assert_eq!(times, [881_250_949, 881_250_950, 881_250_951, 1]);
}

#[test]
fn names_can_be_given_and_files_chosen() {
    let bench = Bench::new();
    let mut options = source(&bench);
    bench.write(
        "set/a.inter",
        INTER.replace("user_id", "who").replace("rating", "stars"),
    );
    bench.write("set/a.item", ITEM);
    options.source = bench.path("set");
    assert_refused(
        load(&options, &bench.out()),
        &["a.inter", "user", "--user", "who, item_id"],
    );
    options.user = Some("who".into());
    options.rating = Some("stars".into());
    options.min_rating = Some(3.0);
    options.text = vec!["release_year".into(), "movie_title".into()];
    options.load.selection.history_length = 1;
    load(&options, &bench.out()).expect("loads");
    let data = bench.data();
    assert_eq!(data.interactions.len(), 3);
    assert_eq!(data.catalogue[1].text, "1997, L.A. Confidential");
    bench.write("set/b.inter", INTER);
    assert_refused(
        load(&options, &bench.out()),
        &["several .inter files", "a.inter", "b.inter"],
    );
    options.source = bench.path("set/a.inter");
    load(&options, &bench.out()).expect("a file loads too");
}

#[test]
fn pictures_come_by_name_or_address() {
    let bench = Bench::new();
    let mut options = source(&bench);
    options.load.selection.without_picture = WithoutPicture::Drop;
    options.images = Some(bench.path("images"));
    bench.picture("images/242.png");
    bench.write(
        "ml-100k/ml-100k.item",
        "item_id:token\ttitle:token\timage_url:token\n242\ta\t//x.org/a.jpg\n302\tb\thttp://x.org/b.png\n51\tc\t\n",
    );
    options.load.selection.history_length = 1;
    let report = load(&options, &bench.out()).expect("loads");
    assert_eq!((report.pictures.copied, report.pictures.to_fetch), (1, 1));
    assert_eq!(report.left_out.items_without_picture, 1);
    assert_eq!(bench.data().catalogue[0].text, "a");
}

#[test]
fn without_item_file_the_interactions_name_the_items() {
    let bench = Bench::new();
    let options = source(&bench);
    std::fs::remove_file(bench.path("ml-100k/ml-100k.item")).expect("removed");
    let report = load(&options, &bench.out()).expect("loads");
    assert_eq!((report.num_items, report.num_items_without_text), (3, 3));
}

#[test]
fn faults_are_named() {
    let cases: [(&str, &str, &[&str]); 7] = [
        (
            "inter",
            "user_id\titem_id:token\n",
            &["\"user_id\"", "no type", "name:type"],
        ),
        (
            "inter",
            "user_id:word\titem_id:token\n",
            &["user_id", "\"word\"", "token_seq"],
        ),
        (
            "inter",
            "user_id:token_seq\titem_id:token\n",
            &["user_id", "cannot be the user"],
        ),
        (
            "inter",
            &INTER.replace("22\t242", "22\t999"),
            &["ml-100k.inter, row 5", "\"999\""],
        ),
        (
            "inter",
            &INTER.replace("881250949", "then"),
            &["row 2, timestamp", "then"],
        ),
        (
            "inter",
            &INTER.replace("22\t242\t", "22\t242 "),
            &["row 5", "3 fields, expected 4"],
        ),
        ("item", "", &["ml-100k.item", "empty"]),
    ];
    for (ending, text, words) in cases {
        let bench = Bench::new();
        let options = source(&bench);
        bench.write(&format!("ml-100k/ml-100k.{ending}"), text);
        assert_refused(load(&options, &bench.out()), words);
        bench.assert_untouched();
    }
    let bench = Bench::new();
    let mut options = source(&bench);
    options.source = bench.path("empty");
    std::fs::create_dir(&options.source).expect("a folder");
    assert_refused(load(&options, &bench.out()), &["no .inter file"]);
    assert!(!read(&bench.path("ml-100k/ml-100k.inter")).is_empty());
}
