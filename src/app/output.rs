//! What the user sees: results on standard output, progress and logs on standard error.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
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
            pace: RefCell::new(None),
        }
    }

    /// A bar for `length` steps of `what`; hidden when quiet or when nobody looks.
    pub fn bar(&self, length: u64, what: &str) -> ProgressBar {
        let form = "{prefix:>14} [{bar:30}] {pos}/{len} {elapsed}, {rate}, {eta} left {msg}";
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
            .with_key(
                "rate",
                |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                    let _ = text.write_str(&rate(state.per_sec()));
                },
            )
            .progress_chars("=> ");
        bar.set_style(style);
        bar.set_prefix(what.to_string());
        bar
    }
}

/// Steps a second as people say it: `3.2/s` when quick, `8.5 s each` when slow.
fn rate(per_second: f64) -> String {
    match per_second {
        rate if !rate.is_finite() || rate <= 0.0 => "-".into(),
        rate if rate >= 1.0 => format!("{rate:.1}/s"),
        rate => format!("{:.1} s each", 1.0 / rate),
    }
}

/// Seconds as people say them: `2d 3h`, `1h 05m`, `4m 10s`, `9s`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.round().max(0.0) as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        86_400.. => format!("{days}d {hours}h"),
        3_600.. => format!("{hours}h {minutes:02}m"),
        60.. => format!("{minutes}m {:02}s", seconds % 60),
        _ => format!("{seconds}s"),
    }
}

/// Seconds between two lines where nobody sees a bar.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Where one part of long work stands, for lines in a log file.
struct Pace {
    name: String,
    total: usize,
    /// When the first step of this process ended, and which it was: a resumed run does not begin at 0.
    first: Option<(Instant, usize)>,
    said: Instant,
}

impl Pace {
    fn new(name: &str, total: usize) -> Self {
        Self {
            name: name.into(),
            total,
            first: None,
            said: Instant::now(),
        }
    }

    /// A line such as `training: 120/1000, 8.5 s each, 2h 04m left, loss 0.1`, at most one a minute.
    fn line(&mut self, position: usize, message: &str, now: Instant) -> Option<String> {
        let (since, first) = *self.first.get_or_insert((now, position));
        if now.duration_since(self.said) < LINE_EVERY || position <= first {
            return None;
        }
        self.said = now;
        let each = now.duration_since(since).as_secs_f64() / (position - first) as f64;
        let left = self.total.saturating_sub(position) as f64 * each;
        Some(format!(
            "{}: {position}/{}, {}, {} left, {message}",
            self.name,
            self.total,
            rate(each.recip()),
            duration(left)
        ))
    }
}

/// Shows the progress of training and other long work: a bar on a terminal, a line a minute elsewhere.
pub struct Watcher {
    output: Output,
    bar: RefCell<Option<ProgressBar>>,
    pace: RefCell<Option<Pace>>,
}

impl Progress for Watcher {
    fn begin(&self, name: &str, total: usize) {
        let bar = self.output.bar(total as u64, name);
        // A bar that nobody sees is a line now and then.
        self.pace
            .replace(bar.is_hidden().then(|| Pace::new(name, total)));
        if let Some(old) = self.bar.replace(Some(bar)) {
            old.finish_and_clear();
        }
    }

    fn advance(&self, position: usize, message: &str) {
        if let Some(bar) = self.bar.borrow().as_ref() {
            bar.set_position(position as u64);
            bar.set_message(message.to_string());
        }
        if let Some(pace) = self.pace.borrow_mut().as_mut()
            && let Some(line) = pace.line(position, message, Instant::now())
        {
            self.output.note(line);
        }
    }

    fn end(&self) {
        self.pace.take();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_durations_are_said_shortly() {
        assert_eq!(rate(12.34), "12.3/s");
        assert_eq!(rate(0.125), "8.0 s each");
        assert_eq!(rate(0.0), "-");
        let said: Vec<String> = [9.4, 250.0, 3_900.0, 183_600.0].map(duration).into();
        assert_eq!(said, ["9s", "4m 10s", "1h 05m", "2d 3h"]);
    }

    #[test]
    fn a_resumed_part_is_paced_by_its_own_steps() {
        let mut pace = Pace::new("training", 1000);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            pace.line(501, "", start),
            None,
            "the first step has no pace"
        );
        assert_eq!(pace.line(503, "", after(20)), None, "within the minute");
        let line = pace.line(511, "loss 1", after(100)).unwrap();
        assert_eq!(line, "training: 511/1000, 10.0 s each, 1h 21m left, loss 1");
        assert_eq!(pace.line(512, "", after(110)), None, "said ten seconds ago");
    }
}
