//! How the program fails: one sentence and its causes, never a backtrace by surprise.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::optimisation::device_failure::{self, DeviceFailure};

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

/// Runs `work` without a word of a panic, here or on the device's own thread; for calls whose panic is caught and explained.
pub fn quietly<T>(work: impl FnOnce() -> T) -> T {
    QUIET.with(|quiet| quiet.set(true));
    let value = work();
    QUIET.with(|quiet| quiet.set(false));
    device_failure::forget();
    value
}

/// What computes on a device: its panics are the device's failures. Beginnings of the names of packages.
const RUNTIMES: [&str; 8] = [
    "cubecl-",
    "burn-cubecl-",
    "burn-wgpu-",
    "wgpu-",
    "cudarc-",
    "burn-tch-",
    "tch-",
    "torch-sys-",
];

/// Replaces the panic message by one sentence; `RUST_BACKTRACE=1` adds the backtrace.
///
/// A device's failure is kept for [`guard`] and for whoever saves: a search for what fits into its memory survives it.
pub fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        if QUIET.with(Cell::get) {
            return;
        }
        let what = panic_text(info.payload());
        let file = info.location().map_or("", |at| at.file());
        let mut stderr = std::io::stderr().lock();
        // After a device's failure others fail for it.
        if is_of_device(file, &what) || device_failure::check().is_err() {
            device_failure::report(&what);
        } else {
            let place = info
                .location()
                .map(|at| format!(" ({}:{})", at.file(), at.line()));
            let _ = writeln!(
                stderr,
                "error: ragar met a mistake of its own: {what}{}\n  Please report it together with the command you ran; RUST_BACKTRACE=1 shows more.",
                place.unwrap_or_default()
            );
        }
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            let trace = std::backtrace::Backtrace::force_capture();
            let _ = writeln!(stderr, "{trace}");
        }
    }));
}

/// Does a panic in the source `file` say that the device could not compute, rather than that something here is wrong?
fn is_of_device(file: &str, what: &str) -> bool {
    let in_runtime = file
        .split(['/', '\\'])
        .any(|part| RUNTIMES.iter().any(|name| part.starts_with(name)));
    // Burn's tensors hand on what their runtime reports when values are read.
    in_runtime || what.starts_with("Error while reading data")
}

/// The way out of a device's failure.
const AFTER_DEVICE: &str = "  \
    What was saved is whole: the same command goes on from it.\n  \
    Where memory ran out, ask for less at once: inference.images_per_batch, in training reflection.images_per_batch \
    and training.micro_batch = \"auto\" (--accept-changes goes on with a run that has begun).\n  \
    Where the device is gone (a driver's reset, a card unplugged), `ragar devices` lists what is usable.\n  \
    If it comes back at the same place, please report it; RUST_BACKTRACE=1 shows more.\n";

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
    let ended = catch_unwind(AssertUnwindSafe(work));
    // A device may lose work without anyone waiting for it: then even what looks finished is not.
    let device = device_failure::check();
    let mut stderr = std::io::stderr().lock();
    if let Err(failure) = &device {
        let _ = write!(stderr, "error: {failure}\n{AFTER_DEVICE}");
    }
    match ended {
        Ok(Ok(())) if device.is_ok() => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            if !error.chain().any(|cause| cause.is::<DeviceFailure>()) {
                let _ = write!(stderr, "{}", sentence(&error));
            }
            exit_code(&error)
        }
        Ok(Ok(())) | Err(_) => ExitCode::FAILURE,
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

    #[test]
    fn a_runtimes_panic_is_the_devices_failure() {
        let registry = "/home/me/.cargo/registry/src/index";
        for name in ["cubecl-wgpu-0.10.0", "wgpu-29.0.4", "burn-tch-0.21.0"] {
            assert!(is_of_device(&format!("{registry}/{name}/src/lib.rs"), ""));
        }
        assert!(is_of_device(r"C:\cargo\cubecl-cuda-0.10.0\src\lib.rs", ""));
        let tensor = format!("{registry}/burn-tensor-0.21.0/src/tensor/api/base.rs");
        let read = "Error while reading data: use `try_into_data` instead to catch the error at runtime: Generic";
        assert!(is_of_device(&tensor, read));
        assert!(!is_of_device(&tensor, "=== Tensor Operation Error ==="));
        assert!(!is_of_device("src/app/pool.rs", "index out of bounds"));
    }
}
