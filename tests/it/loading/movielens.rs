//! MovieLens latest and latest-small.

use ragar::data::loading::movielens::{MovieLensOptions, PosterName, load};
use ragar::data::loading::{Encoding, HistoryChoice, LoadReport, WithoutPicture};

use super::{Bench, assert_refused, history, ids, read};

const MOVIES: &str = "movieId,title,genres\n1,Toy Story (1995),Adventure|Animation|Children\n\
    2,\"Matrix, The (1999)\",Action|Sci-Fi\n3,Heat (1995),(no genres listed)\n4,\"City of Lost Children, The (Cité des enfants perdus, La) (1995)\",Drama\n";
const LINKS: &str =
    "movieId,imdbId,tmdbId\n1,0114709,862\n2,0133093,603\n3,0113277,949\n4,0112682,\n";
/// Out of order, with one pair twice.
const RATINGS: &str = "userId,movieId,rating,timestamp\n1,3,4.0,300\n1,1,5.0,100\n1,2,0.5,200\n1,1,4.5,400\n2,4,3.0,50\n";

fn source(bench: &Bench) -> MovieLensOptions {
    bench.write("ml/movies.csv", MOVIES);
    bench.write("ml/links.csv", LINKS);
    bench.write("ml/ratings.csv", RATINGS);
    MovieLensOptions {
        source: bench.path("ml"),
        posters: Some(bench.path("posters")),
        load: history(2),
        ..MovieLensOptions::default()
    }
}

fn posters(bench: &Bench, names: &[&str]) {
    for name in names {
        bench.picture(&format!("posters/{name}"));
    }
}

fn loaded(bench: &Bench, options: &MovieLensOptions) -> LoadReport {
    load(options, &bench.out()).expect("loads")
}

#[test]
fn ratings_become_histories_by_time() {
    let bench = Bench::new();
    let options = source(&bench);
    posters(
        &bench,
        &[
            "tt0114709.jpg",
            "tt0133093.png",
            "deep/tt0113277.JPEG",
            "tt9999999.jpg",
            "notes.bmp",
        ],
    );
    bench.write("posters/readme.txt", "not a picture");
    let report = loaded(&bench, &options);
    let data = bench.data();
    let texts: Vec<&str> = data
        .catalogue
        .iter()
        .map(|item| item.text.as_str())
        .collect();
    assert_eq!(
        texts,
        [
            "Toy Story (1995): adventure, animation, children",
            "The Matrix (1999): action, sci-fi",
            "Heat (1995)",
        ]
    );
    assert_eq!(ids(&data, 0), (vec!["1".into(), "2".into()], "3".into()));
    assert_eq!(data.histories.len(), 1);
    assert_eq!(data.interactions.len(), 3);
    assert!(data.interactions.iter().all(|one| one.user == "1"));
    assert_eq!(report.left_out.items_without_picture, 1);
    assert_eq!(report.left_out.interactions_of_those_items, 1);
    assert_eq!(report.left_out.repeated_interactions, 1);
    assert_eq!(report.pictures.copied, 3);
    assert!(data.catalogue.iter().all(|item| item.image.is_file()));
    assert!(read(&bench.out().join("items.csv")).starts_with("item_id,image,text,genres\n"));
}

#[test]
fn posters_are_found_by_each_number() {
    let by_number = [
        (["0114709.jpg", "133093.jpg", "00113277.png"], None),
        (["862.jpg", "603.webp", "949.jpg"], None),
        (["862.jpg", "603.jpg", "0949.jpg"], Some(PosterName::Tmdb)),
        (["1.jpg", "2.jpg", "3.jpg"], Some(PosterName::Movie)),
        (["tt114709.jpg", "tt0133093.jpg", "TT0113277.jpg"], None),
    ];
    for (names, kind) in by_number {
        let bench = Bench::new();
        let mut options = source(&bench);
        options.posters_by = kind;
        posters(&bench, &names);
        assert_eq!(loaded(&bench, &options).pictures.copied, 3, "{names:?}");
    }
}

#[test]
fn numbers_that_could_be_either_are_asked_about() {
    let bench = Bench::new();
    let options = source(&bench);
    bench.write(
        "ml/links.csv",
        "movieId,imdbId,tmdbId\n1,0000862,603\n2,603,862\n3,949,950\n",
    );
    posters(&bench, &["862.jpg", "603.jpg"]);
    assert_refused(
        load(&options, &bench.out()),
        &["--posters-by", "imdb", "tmdb"],
    );
    posters(&bench, &["nothing.jpg"]);
    let none = MovieLensOptions {
        posters: Some(bench.path("other")),
        ..options.clone()
    };
    bench.picture("other/5.jpg");
    assert_refused(load(&none, &bench.out()), &["other", "no picture is named"]);
    bench.assert_untouched();
}

#[test]
fn low_ratings_and_texts_alone() {
    let bench = Bench::new();
    let mut options = source(&bench);
    options.posters = None;
    options.min_rating = Some(4.0);
    options.load.selection.history_length = 1;
    assert_refused(
        load(&options, &bench.out()),
        &["picture", "--without-picture blank"],
    );
    options.load.selection.without_picture = WithoutPicture::Blank;
    let report = loaded(&bench, &options);
    let data = bench.data();
    assert_eq!(ids(&data, 0), (vec!["1".into()], "3".into()));
    assert_eq!((data.catalogue.len(), report.pictures.blank), (4, 4));
    assert_eq!(
        data.catalogue[3].text,
        "The City of Lost Children, The (Cité des enfants perdus, La) (1995): drama".replace(
            "The City of Lost Children, The",
            "City of Lost Children, The"
        )
    );
}

#[test]
fn stretches_cut_a_long_time_line() {
    let bench = Bench::new();
    let mut options = source(&bench);
    let movies: String = (1..=9).map(|n| format!("{n},Film {n},Drama\n")).collect();
    bench.write("ml/movies.csv", format!("movieId,title,genres\n{movies}"));
    let ratings: String = (1..=9)
        .map(|n| format!("7,{n},3,{}\n", 1_000 - n))
        .collect();
    bench.write(
        "ml/ratings.csv",
        format!("userId,movieId,rating,timestamp\n{ratings}"),
    );
    options.posters = None;
    options.load.selection.without_picture = WithoutPicture::Blank;
    options.load.selection.history_length = 4;
    options.load.selection.histories = HistoryChoice::Stretches;
    loaded(&bench, &options);
    let data = bench.data();
    let text = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>();
    assert_eq!(data.histories.len(), 2);
    assert_eq!(ids(&data, 0), (text(&[9, 8, 7, 6]), "5".into()));
    assert_eq!(ids(&data, 1), (text(&[5, 4, 3, 2]), "1".into()));
}

#[test]
fn faults_are_named_with_file_and_row() {
    let cases: [(&str, &[u8], &[&str]); 14] = [
        (
            "ratings.csv",
            b"userId,movieId,rating,timestamp\n1,99,4,1\n",
            &["ratings.csv, row 2", "\"99\""],
        ),
        (
            "ratings.csv",
            b"userId,movieId,rating,timestamp\n1,1,4,1\n1,2,NaN,1\n",
            &["row 3, rating", "NaN"],
        ),
        (
            "ratings.csv",
            b"userId,movieId,rating,timestamp\n1,1,4,noon\n",
            &["row 2, timestamp", "noon"],
        ),
        (
            "ratings.csv",
            b"userId,movieId,rating,timestamp\n,1,4,1\n",
            &["row 2", "no name"],
        ),
        (
            "ratings.csv",
            b"userId,movieId,rating,timestamp\n1,1,4\n",
            &["row 2", "3 fields, expected 4"],
        ),
        (
            "ratings.csv",
            b"user,movieId,rating,timestamp\n",
            &["ratings.csv", "user", "user, movieId"],
        ),
        ("ratings.csv", b"", &["ratings.csv", "empty"]),
        ("ratings.csv", b"\xff\xfeu\0s\0", &["UTF-16"]),
        ("ratings.csv", b"\x1f\x8b\x08\0", &["gzip"]),
        ("ratings.csv", b"PK\x03\x04", &["zip"]),
        (
            "movies.csv",
            b"movieId,title,genres\n1,Caf\xe9,Drama\n",
            &["movies.csv, row 2, title", "UTF-8", "--encoding latin-1"],
        ),
        (
            "movies.csv",
            b"movieId,title,genres\n1,A,B\n1,C,D\n",
            &["movies.csv, row 3", "\"1\"", "twice"],
        ),
        (
            "movies.csv",
            b"movieId,title,genres\n,A,B\n",
            &["movies.csv, row 2", "no id"],
        ),
        (
            "links.csv",
            b"movieId,imdbId,tmdbId\n1,x9,1\n",
            &["links.csv, row 2, imdbId", "x9"],
        ),
    ];
    for (file, bytes, words) in cases {
        let bench = Bench::new();
        let options = source(&bench);
        posters(&bench, &["tt0114709.jpg", "tt0133093.png", "tt0113277.jpg"]);
        bench.write(&format!("ml/{file}"), bytes);
        assert_refused(load(&options, &bench.out()), words);
        bench.assert_untouched();
    }
    let bench = Bench::new();
    let mut options = source(&bench);
    options.source = bench.path("elsewhere");
    options.posters = None;
    assert_refused(
        load(&options, &bench.out()),
        &["movies.csv", "no such file"],
    );
}

#[test]
fn bad_rows_can_be_skipped_and_are_reported() {
    let bench = Bench::new();
    let mut options = source(&bench);
    posters(&bench, &["tt0114709.jpg", "tt0133093.png", "tt0113277.jpg"]);
    bench.write(
        "ml/ratings.csv",
        [
            b"userId,movieId,rating,timestamp\n1,99,4,1\n1,1\n\xff,1,1,1\n".as_slice(),
            &RATINGS.as_bytes()[32..],
        ]
        .concat(),
    );
    options.load.skip_bad = true;
    let report = loaded(&bench, &options);
    assert_eq!(report.num_bad_rows, 3, "{:?}", report.bad_rows);
    assert!(report.bad_rows[0].contains("row 2") && report.bad_rows[2].contains("UTF-8"));
    assert_eq!(bench.data().interactions.len(), 3);
}

#[test]
fn marks_line_ends_and_latin1_are_read() {
    let bench = Bench::new();
    let mut options = source(&bench);
    options.posters = None;
    options.load.selection.without_picture = WithoutPicture::Blank;
    let mixed = RATINGS.replacen('\n', "\r\n", 2);
    bench.write("ml/ratings.csv", format!("\u{feff}{mixed}"));
    loaded(&bench, &options);
    let expected = bench.data();
    assert_eq!(expected.interactions.len(), 4);
    bench.write(
        "ml/movies.csv",
        b"movieId,title,genres\n1,Caf\xe9,D\n2,B,D\n3,C,D\n4,D,D\n",
    );
    options.load.encoding = Encoding::Latin1;
    loaded(&bench, &options);
    assert_eq!(bench.data().catalogue[0].text, "Café: d");
}

#[test]
fn a_quote_that_is_never_closed_does_not_swallow_the_file() {
    let bench = Bench::new();
    let mut options = source(&bench);
    options.posters = None;
    options.load.skip_bad = true;
    let mut movies = b"movieId,title,genres\n1,\"Open,Drama\n".to_vec();
    movies.extend(std::iter::repeat_n(b"2,Filler,Drama\n".as_slice(), 1_400_000).flatten());
    assert!(movies.len() > 20 << 20);
    bench.write("ml/movies.csv", &movies);
    assert_refused(
        load(&options, &bench.out()),
        &["movies.csv", "row 2", "longer than 16 MiB", "quote"],
    );
    // A field that is long without end is a fault of its row.
    let long = format!(
        "movieId,title,genres\n1,{},Drama\n2,B,C\n3,C,D\n4,D,E\n",
        "x".repeat(2 << 20)
    );
    bench.write("ml/movies.csv", long);
    options.load.skip_bad = false;
    assert_refused(
        load(&options, &bench.out()),
        &["movies.csv, row 2, title", "2097152 bytes"],
    );
    bench.assert_untouched();
}
