//! How the program fails: one sentence and its causes, never a backtrace by surprise.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// The command line is well formed but asks for something that cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Stopped by the user after everything computed was saved: exit code 75, "try again".
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Interrupted(pub String);

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

impl Interrupted {
    /// Stopped after `step` steps.
    pub fn after(step: usize) -> Self {
        Self(format!(
            "interrupted after step {step}, all saved: run the same command again to go on"
        ))
    }
}

/// Runs `work` without the panic hook saying a word; for calls whose panic is caught and explained.
pub fn quietly<T>(work: impl FnOnce() -> T) -> T {
    QUIET.with(|quiet| quiet.set(true));
    let value = work();
    QUIET.with(|quiet| quiet.set(false));
    value
}

/// Replaces the panic message by one sentence; `RUST_BACKTRACE=1` adds the backtrace.
pub fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        if QUIET.with(Cell::get) {
            return;
        }
        let what = panic_text(info.payload());
        let place = info
            .location()
            .map(|at| format!(" ({}:{})", at.file(), at.line()))
            .unwrap_or_default();
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(
            stderr,
            "error: ragar met a mistake of its own: {what}{place}\n  Please report it together with the command you ran; RUST_BACKTRACE=1 shows more."
        );
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            let trace = std::backtrace::Backtrace::force_capture();
            let _ = writeln!(stderr, "{trace}");
        }
    }));
}

/// The words of a panic.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

/// Runs the program's work and turns its end into an exit code.
pub fn guard(work: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            let _ = write!(std::io::stderr().lock(), "{}", sentence(&error));
            exit_code(&error)
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() || error.is::<super::config::ConfigError>() {
        ExitCode::from(2)
    } else if error.is::<Interrupted>() {
        ExitCode::from(75)
    } else {
        ExitCode::FAILURE
    }
}

/// `error: …` and its causes, leaving out a cause that its parent has already spelt out.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    let mut text = format!("error: {said}\n");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            let _ = writeln!(text, "  because: {cause}");
        }
        said = cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn causes_are_named_once() {
        let error = anyhow::anyhow!("disk full").context("cannot save x: disk full");
        assert_eq!(sentence(&error), "error: cannot save x: disk full\n");
        let error = anyhow::anyhow!("disk full").context("cannot save x");
        assert_eq!(
            sentence(&error),
            "error: cannot save x\n  because: disk full\n"
        );
    }

    #[test]
    fn usage_is_found_beneath_context() {
        let error = Err::<(), _>(Usage("no".into()))
            .context("reading")
            .unwrap_err();
        assert_eq!(
            format!("{:?}", exit_code(&error)),
            format!("{:?}", ExitCode::from(2))
        );
    }
}
