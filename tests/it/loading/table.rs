//! Anyone's own tables.

use ragar::data::loading::WithoutPicture;
use ragar::data::loading::table::{TableOptions, load};

use super::{Bench, assert_refused, history, ids};

const CLICKS: &str = "Customer ID,article_id,t_dat,score\nann,0110065001,2018-09-20,5\nann,0110065002,2018-09-21,4\nbob,0110065001,2018-09-22,1\n";

fn options(bench: &Bench, interactions: &str, items: Option<&str>) -> TableOptions {
    TableOptions {
        interactions: bench.path(interactions),
        items: items.map(|name| bench.path(name)),
        load: history(1),
        ..TableOptions::default()
    }
}

#[test]
fn usual_names_are_guessed() {
    let bench = Bench::new();
    bench.write("clicks.csv", CLICKS);
    bench.write("items.csv", "article_id,prod_name,image_url\n0110065001,Strap top,//cdn.org/1.jpg\n0110065002,\"Jeans, blue\",cdn/2.png\n");
    bench.picture("cdn/2.png");
    let report = load(
        &options(&bench, "clicks.csv", Some("items.csv")),
        &bench.out(),
    )
    .expect("loads");
    let data = bench.data();
    assert_eq!(data.catalogue[0].id, "0110065001", "zeros in front stay");
    assert_eq!(data.catalogue[1].text, "Jeans, blue");
    assert_eq!(
        ids(&data, 0),
        (vec!["0110065001".into()], "0110065002".into())
    );
    assert_eq!(data.interactions[0].timestamp, 1_537_401_600);
    assert_eq!((report.pictures.to_fetch, report.pictures.copied), (1, 1));
}

#[test]
fn names_can_be_given() {
    let bench = Bench::new();
    bench.write(
        "orders.txt",
        "wer;was;wann;wie\nann;a;2;5\nann;b;1;4\nann;c;3;1\n",
    );
    bench.write(
        "waren.tsv",
        "nummer\tbezeichnung\tmarke\nb\tHut\tKrone\na\tSchuh\t\nc\tRock\tX\n",
    );
    let mut options = options(&bench, "orders.txt", Some("waren.tsv"));
    assert_refused(
        load(&options, &bench.out()),
        &[
            "waren.tsv",
            "item",
            "nummer, bezeichnung, marke",
            "--item-key",
        ],
    );
    options.item_key = Some("nummer".into());
    options.text = vec!["bezeichnung".into(), "marke".into()];
    options.load.selection.without_picture = WithoutPicture::Blank;
    assert_refused(
        load(&options, &bench.out()),
        &["orders.txt", "user", "--user", "wer;was"],
    );
    // The delimiter is of one file; a tab-separated one beside it needs its own ending, so both are converted here.
    bench.write(
        "waren.csv",
        "nummer;bezeichnung;marke\nb;Hut;Krone\na;Schuh;\nc;Rock;X\n",
    );
    options.items = Some(bench.path("waren.csv"));
    options.delimiter = Some(';');
    options.user = Some("wer".into());
    options.item = Some("was".into());
    options.time = Some("wann".into());
    options.rating = Some("wie".into());
    options.min_rating = Some(2.0);
    load(&options, &bench.out()).expect("loads");
    let data = bench.data();
    assert_eq!(ids(&data, 0), (vec!["b".into()], "a".into()));
    assert_eq!(data.catalogue[0].text, "Hut, Krone");
    assert_eq!(data.catalogue[1].text, "Schuh");
    options.user = Some("niemand".into());
    assert_refused(
        load(&options, &bench.out()),
        &["user", "wer, was, wann, wie"],
    );
    options.delimiter = Some('→');
    assert_refused(load(&options, &bench.out()), &["--delimiter", "ASCII"]);
}

#[test]
fn json_lines_are_tables_too() {
    let bench = Bench::new();
    bench.write(
        "clicks.jsonl",
        "{\"user\": 1, \"item\": \"a\", \"timestamp\": 5}\n\n{\"user\": \"1\", \"item\": 7, \"timestamp\": 6.5, \"more\": {}}\r\n",
    );
    bench.write(
        "items.ndjson",
        "\u{feff}{\"item\": \"a\", \"title\": null}\n{\"item\": 7, \"title\": [\"red\", \"hat\"], \"photo\": \"pics/x.png\"}\n",
    );
    let mut options = options(&bench, "clicks.jsonl", Some("items.ndjson"));
    options.load.selection.without_picture = WithoutPicture::Blank;
    bench.picture("pics/x.png");
    let report = load(&options, &bench.out()).expect("loads");
    let data = bench.data();
    assert_eq!(ids(&data, 0), (vec!["a".into()], "7".into()));
    assert_eq!(data.catalogue[1].text, "red, hat");
    assert_eq!((report.pictures.copied, report.pictures.blank), (1, 1));
    bench.write(
        "clicks.jsonl",
        "{\"user\": 1, \"item\": \"a\", \"timestamp\": 5}\n{\"user\": 1,\n",
    );
    assert_refused(
        load(&options, &bench.out()),
        &["clicks.jsonl, row 2", "no JSON object"],
    );
    bench.write("clicks.jsonl", "[1, 2]\n");
    assert_refused(
        load(&options, &bench.out()),
        &["clicks.jsonl", "row 1", "no JSON object"],
    );
    bench.write("clicks.jsonl", "[".repeat(100_000));
    assert_refused(load(&options, &bench.out()), &["clicks.jsonl"]);
}

#[test]
fn one_table_can_say_everything_and_pictures_go_by_id() {
    let bench = Bench::new();
    bench.write(
        "all.csv",
        "user,item,name\nann,A/1,first\nann,\"b,2\",second\nann,A/1,first again\nbob,靴,third\n",
    );
    bench.picture("photos/靴.png");
    bench.picture("photos/deep/b,2.png");
    let mut options = options(&bench, "all.csv", None);
    options.images = Some(bench.path("photos"));
    options.load.selection.without_picture = WithoutPicture::Blank;
    let report = load(&options, &bench.out()).expect("loads");
    let data = bench.data();
    assert_eq!(
        (
            report.num_items,
            report.pictures.copied,
            report.pictures.blank
        ),
        (3, 2, 1)
    );
    assert_eq!(
        ids(&data, 0),
        (vec!["A/1".into()], "b,2".into()),
        "the order of the rows counts"
    );
    assert_eq!(data.catalogue[0].text, "first");
    for item in data.catalogue.iter() {
        let name = item
            .image
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        assert!(
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || "._~-".contains(c)),
            "{name}"
        );
    }
}

#[test]
fn pictures_cannot_lie_elsewhere() {
    for path in ["../secret.png", "/etc/passwd", "pics/../../secret.png"] {
        let bench = Bench::new();
        bench.picture("secret.png");
        bench.write(
            "shop/items.csv",
            format!("item,text,image\na,t,{path}\nb,t,pics/b.png\n"),
        );
        bench.write("shop/clicks.csv", "user,item\nu,a\nu,b\n");
        let options = options(&bench, "shop/clicks.csv", Some("shop/items.csv"));
        assert_refused(
            load(&options, &bench.out()),
            &["items.csv, row 2, picture", "leads out of"],
        );
        bench.assert_untouched();
    }
}

#[test]
fn faults_are_named() {
    let cases: [(&str, &str, &[&str]); 6] = [
        (
            "clicks.csv",
            "user,item,time\nu,a,2020-02-31\n",
            &["row 2, time", "2020-02-31"],
        ),
        (
            "clicks.csv",
            "user,item,time\nu,z,1\n",
            &["clicks.csv, row 2", "\"z\"", "not among the items"],
        ),
        (
            "clicks.csv",
            "item,time\n",
            &["clicks.csv", "--user", "item, time"],
        ),
        (
            "clicks.csv",
            "user,item,time\n",
            &["nothing is left", "no interaction"],
        ),
        (
            "clicks.csv",
            "user,item,time\nu,a,1\n",
            &["nothing is left", "2 interactions", "--history"],
        ),
        (
            "items.csv",
            "item,text,url\na,t,javascript://alert\n",
            &["items.csv, row 2, picture", "http"],
        ),
    ];
    for (file, text, words) in cases {
        let bench = Bench::new();
        bench.write("items.csv", "item,text,url\na,t,//x.org/a\nb,t,//x.org/b\n");
        bench.write("clicks.csv", "user,item,time\nu,a,1\nu,b,2\n");
        let options = options(&bench, "clicks.csv", Some("items.csv"));
        bench.write(file, text);
        assert_refused(load(&options, &bench.out()), words);
        bench.assert_untouched();
    }
    let bench = Bench::new();
    bench.write("clicks.xlsx", "PK");
    assert_refused(
        load(&options(&bench, "clicks.xlsx", None), &bench.out()),
        &["clicks.xlsx", ".csv", "--delimiter"],
    );
    bench.write("clicks.parquet", "PAR1");
    assert_refused(
        load(&options(&bench, "clicks.parquet", None), &bench.out()),
        &["clicks.parquet", "Parquet"],
    );
}
