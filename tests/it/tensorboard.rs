//! Event files against TensorBoard's own reader (`tests/golden/event_files.py`).

use std::path::Path;

use ragar::optimisation::tensorboard::EventWriter;
use serde_json::{Value, json};

use crate::support::golden_dir;

/// The files of a run that was stopped after step 3 and went on from its checkpoint of step 2.
const FIRST: &str = "events.out.tfevents.1700000000.ragar.1.0";
const SECOND: &str = "events.out.tfevents.1700000100.ragar.2.0";
/// A white picture of two pixels, as an encoder of PNG files wrote it.
const PICTURE: &str = "white.png";

fn files(picture: &[u8]) -> [(&'static str, Vec<u8>); 2] {
    let loss = |step: usize| 2.0 - 0.25 * step as f32;
    let mut first = Vec::new();
    let mut log = EventWriter::new(&mut first, 1_700_000_000.0).unwrap();
    for step in 0..4 {
        let time = 1_700_000_001.5 + step as f64;
        let values = [("train/loss", loss(step)), ("train/reward", -1.0)];
        log.scalars(time, step, values).unwrap();
    }
    log.image(1_700_000_006.0, 3, "validation/é", picture, 2, 1)
        .unwrap();
    log.scalars(1_700_000_007.0, 3, []).unwrap();

    let mut second = Vec::new();
    let mut log = EventWriter::new(&mut second, 1_700_000_100.0).unwrap();
    log.start(1_700_000_100.0, 2).unwrap();
    for step in [2, 3, 300] {
        let values = [("train/loss", loss(step) + 10.0)];
        log.scalars(1_700_000_101.0 + step as f64, step, values)
            .unwrap();
    }
    log.image(1_700_000_500.0, 300, "validation/é", picture, 2, 1)
        .unwrap();
    [(FIRST, first), (SECOND, second)]
}

/// `RAGAR_WRITE_GOLDEN=1` writes the files anew; the script then records what TensorBoard reads in them.
#[test]
fn tensorboard_reads_what_is_written_each_step_once() {
    let folder = golden_dir("tensorboard");
    let picture = std::fs::read(folder.join(PICTURE)).expect("a picture");
    for (name, bytes) in files(&picture) {
        let committed = folder.join(name);
        if std::env::var_os("RAGAR_WRITE_GOLDEN").is_some() {
            std::fs::write(&committed, &bytes).expect("a file");
        }
        let known = std::fs::read(&committed).expect("a committed file");
        assert!(known == bytes, "{name} is not what TensorBoard was shown");
    }
    let read: Value = read_json(&folder.join("golden.json"));
    // Steps 2 and 3 of the first file are void: the second began at 2.
    let expected = json!([[0, 2.0], [1, 1.75], [2, 11.5], [3, 11.25], [300, -63.0]]);
    assert_eq!(read["scalars"]["train/loss"], expected);
    let expected = json!([[0, -1.0], [1, -1.0]]);
    assert_eq!(read["scalars"]["train/reward"], expected);
    let images = &read["images"]["validation/é"];
    assert_eq!(images, &json!([[300, 2, 1, picture.len()]]));
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read(path).expect("a record");
    serde_json::from_slice(&text).expect("JSON")
}
