//! SIGINT and SIGTERM as a flag that a loop reads between two steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a run that was interrupted and saved its state (BSD's EX_TEMPFAIL).
pub const EXIT_INTERRUPTED: u8 = 75;

/// Set once by a signal, read by training loops.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
}

impl Interrupt {
    /// Answers SIGINT and SIGTERM from now on. A second signal ends the process at once.
    pub fn install() -> Self {
        let interrupt = Self::default();
        let raised = interrupt.raised.clone();
        let installed = ctrlc::set_handler(move || {
            if raised.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        });
        if let Err(error) = installed {
            tracing::warn!("signals are not handled: {error}");
        }
        interrupt
    }

    /// Whether the run should finish its step, save and stop.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Raises the flag, as a signal would.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
    }
}
