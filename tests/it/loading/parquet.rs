//! Parquet tables, written with the crate that reads them.

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use ragar::data::loading::table::{TableOptions, load};

use super::{Bench, assert_refused, history, ids};

const SCHEMA: &str = "message clicks {
    required binary user_id (UTF8); required binary item_id (UTF8); required int64 timestamp (TIMESTAMP_MILLIS);
    required binary title (UTF8); optional binary image_url (UTF8);
}";

fn write(bench: &Bench, compression: Compression) {
    let schema = Arc::new(parse_message_type(SCHEMA).expect("a schema"));
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let file = std::fs::File::create(bench.path("clicks.parquet")).expect("a file");
    let mut writer =
        SerializedFileWriter::new(file, schema, Arc::new(properties)).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let texts = |texts: [&str; 3]| texts.map(ByteArray::from).to_vec();
    let columns = [
        Some(texts(["ann", "ann", "ann"])),
        Some(texts(["a", "b", "靴"])),
        None,
        Some(texts(["Hat", "Coat", "靴子"])),
    ];
    for column in columns {
        let mut column_writer = group.next_column().expect("no fault").expect("a column");
        match column {
            Some(values) => column_writer
                .typed::<ByteArrayType>()
                .write_batch(&values, None, None),
            None => column_writer.typed::<Int64Type>().write_batch(
                &[3_000_500, 1_000_000, 2_000_000],
                None,
                None,
            ),
        }
        .expect("written");
        column_writer.close().expect("closed");
    }
    let mut urls = group.next_column().expect("no fault").expect("a column");
    let values = [
        ByteArray::from("//x.org/a.jpg"),
        ByteArray::from("//x.org/c.jpg"),
    ];
    urls.typed::<ByteArrayType>()
        .write_batch(&values, Some(&[1, 0, 1]), None)
        .expect("written");
    urls.close().expect("closed");
    group.close().expect("closed");
    writer.close().expect("closed");
}

fn options(bench: &Bench) -> TableOptions {
    TableOptions {
        interactions: bench.path("clicks.parquet"),
        load: history(1),
        ..TableOptions::default()
    }
}

#[test]
fn parquet_is_a_table_too() {
    let compressions = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
    ];
    for compression in compressions {
        let bench = Bench::new();
        write(&bench, compression);
        let report = load(&options(&bench), &bench.out()).expect("loads");
        let data = bench.data();
        assert_eq!(report.left_out.items_without_picture, 1, "{compression:?}");
        assert_eq!(ids(&data, 0), (vec!["靴".into()], "a".into()));
        assert_eq!(data.interactions[1].timestamp, 3_000);
        assert_eq!(data.catalogue[0].text, "Hat");
    }
}

#[test]
fn broken_parquet_is_refused() {
    let bench = Bench::new();
    write(&bench, Compression::SNAPPY);
    let bytes = std::fs::read(bench.path("clicks.parquet")).expect("a file");
    for length in [0, 3, 4, 12, bytes.len() / 2, bytes.len() - 1] {
        bench.write("clicks.parquet", &bytes[..length]);
        assert_refused(load(&options(&bench), &bench.out()), &["clicks.parquet"]);
    }
    // A broken page is met while reading; whichever byte it is, there is an answer.
    for place in (4..bytes.len()).step_by(7) {
        let mut spoilt = bytes.clone();
        spoilt[place] ^= 0x55;
        bench.write("clicks.parquet", &spoilt);
        let result = std::panic::catch_unwind(|| load(&options(&bench), &bench.out()));
        assert!(result.is_ok(), "panicked at byte {place}");
    }
}
