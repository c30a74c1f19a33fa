//! Bringing the pictures whose addresses a prepared folder knows, politely and warily.
//!
//! Politely: hosts are asked no faster than told, a host that says "later" is left alone until then, what is there is
//! not asked for again, and what was begun goes on where it stopped. Warily: no address of a private network is
//! followed, also not after a redirect or a name look-up; sizes are held before and while reading, and a picture counts
//! only once it decodes within the folder's limits. Files are written aside and renamed.

pub mod address;
pub mod hosts;
pub mod ledger;
mod request;
mod run;
mod task;
mod worker;

use std::time::Duration;

pub use address::PrivateNetworks;
pub use run::{FetchReport, fetch};

/// How to ask.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchOptions {
    /// Pictures at once.
    pub parallel: usize,
    /// Requests a second to each host.
    pub per_second: f64,
    /// For a connection, for the start of an answer, and for each piece of it.
    pub timeout: Duration,
    /// For one picture as a whole.
    pub longest: Duration,
    /// Times that a picture is tried again after a failure that may pass.
    pub retries: u32,
    /// Wait before the first of them; it doubles.
    pub first_wait: Duration,
    /// A host that asks for a longer wait is left for another run.
    pub longest_wait: Duration,
    pub max_redirects: u32,
    pub private: PrivateNetworks,
    /// Whether what failed for good before is tried again.
    pub retry_failed: bool,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            parallel: 8,
            per_second: 8.0,
            timeout: Duration::from_secs(20),
            longest: Duration::from_secs(300),
            retries: 4,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            max_redirects: 5,
            private: PrivateNetworks::None,
            retry_failed: false,
        }
    }
}

/// What stops a whole run; what concerns one picture is in the ledger.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Folder(#[from] super::loading::LoadError),
    #[error("{option}: {found} is out of range; expected {expected}")]
    Option {
        option: &'static str,
        found: String,
        expected: &'static str,
    },
}
