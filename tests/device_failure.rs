//! A device that loses work. A program of its own: what is reported holds for all of it.

use ragar::optimisation::{Checkpoint, CheckpointError, CheckpointStore, device_failure};

#[test]
fn nothing_is_saved_after_a_device_has_lost_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = CheckpointStore::new(folder.path(), &"configuration", 2);
    let checkpoint = |step| Checkpoint {
        step,
        tensors: Default::default(),
        values: serde_json::Value::Null,
    };
    store.save(&checkpoint(1)).expect("saved");

    device_failure::report("can't allocate\n  buffer of size: 9\nBacktrace:\n   0: std::backtrace");
    device_failure::report("receiver gone");
    let error = store.save(&checkpoint(2)).expect_err("refused");
    assert!(matches!(error, CheckpointError::Device(_)));
    assert_eq!(
        error.to_string(),
        "the device failed: can't allocate buffer of size: 9\n  and then: receiver gone"
    );
    let newest = store.latest(&mut Vec::new()).expect("readable");
    assert_eq!(newest.expect("the one before").step, 1);

    // A search for what fits into the memory expects it.
    device_failure::forget();
    device_failure::report(&"x".repeat(9_000));
    assert!(
        device_failure::check()
            .expect_err("reported")
            .to_string()
            .len()
            < 400
    );
    device_failure::forget();
    store.save(&checkpoint(2)).expect("saved");
}
