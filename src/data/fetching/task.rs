//! One picture to bring.

use std::path::PathBuf;

/// A picture that is not there yet.
#[derive(Debug, Clone)]
pub struct Task {
    /// An item that shows it.
    pub item: String,
    /// Path in the folder, as `items.csv` says it.
    pub image: String,
    /// Where the file goes.
    pub target: PathBuf,
    pub url: url::Url,
    /// Times that it was tried.
    pub num_tries: u32,
}

/// Why a picture did not come.
#[derive(Debug)]
pub struct Failure {
    pub reason: String,
    pub what_next: WhatNext,
}

/// What a failure leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhatNext {
    /// It will fail the same way again.
    GiveUp,
    /// It may pass.
    TryAgain,
    /// The host asks to be left alone, for as long as it says.
    LeaveHost(Option<std::time::Duration>),
    /// The run is being stopped.
    Stop,
}

impl Failure {
    pub fn for_good(reason: impl ToString) -> Self {
        Self {
            reason: reason.to_string(),
            what_next: WhatNext::GiveUp,
        }
    }

    pub fn passing(reason: impl ToString) -> Self {
        Self {
            reason: reason.to_string(),
            what_next: WhatNext::TryAgain,
        }
    }

    pub fn stopped() -> Self {
        Self {
            reason: "stopped".into(),
            what_next: WhatNext::Stop,
        }
    }
}

/// The host and port that share one pace.
pub fn host_of(url: &url::Url) -> String {
    format!(
        "{}:{}",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or_default()
    )
}
