//! What a study has finished stays known, so that a long one can be interrupted and goes on where it was.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::app::files;

/// A finished part of a study, as it lies in its file.
#[derive(Serialize, Deserialize)]
struct Finished<T> {
    configuration: String,
    scores: T,
}

/// The scores at `path` that an earlier call left there under the same configuration, or else those of `measure`, which
/// are left there.
///
/// # Errors
/// Those of `measure`; when the file cannot be read or written, or was made under another configuration.
pub(super) fn remembered<T: Serialize + DeserializeOwned>(
    path: &Path,
    configuration: &str,
    measure: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if let Some(known) = known(path, configuration)? {
        return Ok(known);
    }
    let finished = Finished {
        configuration: configuration.to_string(),
        scores: measure()?,
    };
    files::write_json(path, &finished)?;
    // As a later call reads them, to the last digit.
    Ok(known(path, configuration)?.unwrap_or(finished.scores))
}

fn known<T: DeserializeOwned>(path: &Path, configuration: &str) -> anyhow::Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let finished: Finished<T> = serde_json::from_slice(&text)
        .with_context(|| format!("{}: remove it to measure again", path.display()))?;
    anyhow::ensure!(
        finished.configuration == configuration,
        "{} was made under another configuration: choose another --out, or restore the configuration",
        path.display()
    );
    Ok(Some(finished.scores))
}
