//! What the user sees: results on standard output, progress and logs on standard error.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::optimisation::Progress;

/// Logs of this library at `info` (with `--quiet` at `warn`), of others at `warn`; `RUST_LOG` overrules.
pub fn start_logging(quiet: bool) {
    let usual = if quiet { "warn" } else { "warn,ragar=info" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(usual));
    // A second call, as in tests, keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .try_init();
}

/// Where results go and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// One JSON document instead of sentences.
    pub json: bool,
    /// Neither bars nor sentences, only results and errors.
    pub quiet: bool,
}

impl Output {
    /// A remark on the way; not part of the result.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// The command's result: `text` for people, `value` for machines.
    pub fn result(&self, text: impl Display, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = if self.json {
            serde_json::to_string_pretty(value)?
        } else {
            text.to_string()
        };
        if !line.ends_with('\n') {
            line.push('\n');
        }
        match std::io::stdout().lock().write_all(line.as_bytes()) {
            // `ragar … | head` has read enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            done => Ok(done?),
        }
    }

    /// A watcher for long work: a bar on a terminal, and remarks.
    pub fn watcher(self) -> Watcher {
        Watcher {
            output: self,
            bar: RefCell::new(None),
        }
    }

    /// A bar for `length` steps of `what`; hidden when quiet or when nobody looks.
    pub fn bar(&self, length: u64, what: &str) -> ProgressBar {
        let form = "{prefix:>14} [{bar:30}] {pos}/{len} {elapsed}, {eta} left {msg}";
        self.bar_of(length, what, form)
    }

    /// As [`Output::bar`], for `length` bytes.
    pub fn byte_bar(&self, length: u64, what: &str) -> ProgressBar {
        let form =
            "{prefix:>14} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left {msg}";
        self.bar_of(length, what, form)
    }

    fn bar_of(&self, length: u64, what: &str, form: &str) -> ProgressBar {
        let bar = ProgressBar::new(length);
        if self.quiet || self.json || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template(form)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        bar.set_style(style);
        bar.set_prefix(what.to_string());
        bar
    }
}

/// Shows the progress of training and other long work.
pub struct Watcher {
    output: Output,
    bar: RefCell<Option<ProgressBar>>,
}

impl Progress for Watcher {
    fn begin(&self, name: &str, total: usize) {
        let bar = self.output.bar(total as u64, name);
        if let Some(old) = self.bar.replace(Some(bar)) {
            old.finish_and_clear();
        }
    }

    fn advance(&self, position: usize, message: &str) {
        if let Some(bar) = self.bar.borrow().as_ref() {
            bar.set_position(position as u64);
            bar.set_message(message.to_string());
        }
    }

    fn end(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn note(&self, text: &str) {
        match self.bar.borrow().as_ref() {
            Some(bar) => bar.suspend(|| self.output.note(text)),
            None => self.output.note(text),
        }
    }
}
