//! The proof that a checkpoint was imported rightly: run it on the inputs that a golden file recorded, and compare with
//! what the reference implementation answered. The file's form is in `docs/golden.md`.

mod case;
mod comparison;
mod file;
mod kinds;

use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use serde::Serialize;

use super::backend::Devices;
use case::Case;
pub use comparison::{Comparison, Tolerance};
pub use file::GoldenFile;

/// What is to be proved, and how.
#[derive(Debug)]
pub struct Question<'a> {
    /// The checkpoint; not needed for a kind that brings its own weights.
    pub model: Option<&'a Path>,
    /// A PEFT folder, in place of the one that the golden file names.
    pub adapter: Option<&'a Path>,
    /// What the network computes in.
    pub dtype: FloatDType,
    /// How far an output may be off.
    pub tolerance: Tolerance,
}

/// The comparisons of one golden file.
#[derive(Debug, Serialize)]
pub struct Proof {
    /// The checkpoint.
    pub model: Option<PathBuf>,
    /// The golden file.
    pub golden: PathBuf,
    /// What it records: `clip`, `unet`, …
    pub kind: String,
    /// Where it was computed.
    pub device: String,
    /// In which type.
    pub dtype: String,
    /// The applied adapter.
    pub adapter: Option<PathBuf>,
    /// Are all outputs within their bounds?
    pub passed: bool,
    /// One per recorded output.
    pub outputs: Vec<Comparison>,
}

/// Computes every recorded output and compares.
///
/// # Errors
/// When file or folder cannot be used. Outputs that differ are no error here: see [`Proof::passed`].
pub fn prove(golden: &Path, question: &Question<'_>, devices: &Devices) -> anyhow::Result<Proof> {
    let golden = GoldenFile::open(golden)?;
    let kind: String = golden.required("kind")?;
    let named = golden.option("adapter").filter(|name| !name.is_empty());
    let adapter = match (question.adapter, named) {
        (Some(given), _) => Some(given.to_path_buf()),
        (None, Some(name)) => Some(golden.folder().join(name)),
        (None, None) => None,
    };
    let case = Case {
        golden: &golden,
        model: question.model,
        adapter: adapter.as_deref(),
        dtype: question.dtype,
        device: devices.frozen.clone(),
        train_device: devices.train.clone(),
    };
    let computed = kinds::compute(&kind, &case)?;
    let outputs: Vec<Comparison> = golden
        .outputs()
        .map(|(name, expected)| {
            let tolerance = match kinds::is_amplified(&kind, name) {
                true => question.tolerance.amplified(),
                false => question.tolerance,
            };
            match computed.get(name) {
                Some(found) => Comparison::new(name, expected, found, tolerance),
                None => {
                    let reason = format!("kind `{kind}` computes no such output");
                    Comparison::failed(name, expected, reason)
                }
            }
        })
        .collect();
    Ok(Proof {
        model: question.model.map(Path::to_path_buf),
        golden: golden.path().to_path_buf(),
        device: devices.name.clone(),
        dtype: format!("{:?}", question.dtype).to_lowercase(),
        adapter,
        passed: outputs.iter().all(|line| line.passed),
        outputs,
        kind,
    })
}
