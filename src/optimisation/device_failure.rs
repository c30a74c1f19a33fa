//! What a device's runtime says when it loses work.
//!
//! Burn's GPU backends compute on a thread of their own, which swallows its panics: whoever waits for a result learns of
//! one when values are read, or never. The program's panic hook reports them here, and nothing is saved after one.

use std::sync::{Mutex, MutexGuard, PoisonError};

static REPORTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The device lost work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the device failed: {0}")]
pub struct DeviceFailure(String);

fn reported() -> MutexGuard<'static, Vec<String>> {
    REPORTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what a device's runtime said; of many failures the first and the last.
pub fn report(what: &str) {
    let mut reported = reported();
    reported.truncate(1);
    reported.push(in_short(what));
}

/// Forgets what was reported: for whoever expected it and can do without the work.
pub fn forget() {
    reported().clear();
}

/// Refuses where something was reported.
///
/// # Errors
/// The first and the last thing that was.
pub fn check() -> Result<(), DeviceFailure> {
    let reported = reported();
    let (Some(first), Some(last)) = (reported.first(), reported.last()) else {
        return Ok(());
    };
    let mut said = first.clone();
    if last != first {
        said += "\n  and then: ";
        said += last;
    }
    Err(DeviceFailure(said))
}

/// On one line, without the backtrace that a runtime hangs on.
fn in_short(what: &str) -> String {
    let what = what.split("\nBacktrace").next().unwrap_or_default();
    let words: Vec<&str> = what.split_whitespace().collect();
    words.join(" ").chars().take(300).collect()
}
