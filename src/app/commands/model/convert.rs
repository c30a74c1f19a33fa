//! `ragar model convert`: any checkpoint as one safetensors file per network.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use model_import::{Checkpoint, SaveDtype, convert_file};
use serde::Serialize;

use crate::app::cli::ComputeDtype;
use crate::app::failure::Usage;
use crate::app::session::Session;
use crate::pretrained::hub;

/// Files beside the weights that belong to the network.
const COMPANIONS: [&str; 3] = ["json", "txt", "jinja"];

#[derive(Debug, Serialize)]
struct Converted {
    files: Vec<File>,
}

#[derive(Debug, Serialize)]
struct File {
    from: PathBuf,
    to: PathBuf,
    tensors: usize,
    bytes: u64,
}

/// Writes `from` as `out`: a file for a file name, else a folder with what stands beside the weights.
///
/// # Errors
/// When there are no weights, they cannot be read, or the folder cannot be written.
pub fn convert(
    session: &Session,
    from: &Path,
    out: &Path,
    dtype: ComputeDtype,
) -> anyhow::Result<()> {
    let dtype = match dtype {
        ComputeDtype::F32 => SaveDtype::F32,
        ComputeDtype::F16 => SaveDtype::F16,
        ComputeDtype::Bf16 => SaveDtype::BF16,
    };
    let located = hub::located(from);
    let from = located.as_path();
    let mut files = Vec::new();
    if out.extension().is_some_and(|end| end == "safetensors") {
        files.push(weights(from, out, dtype)?);
    } else {
        if !from.is_dir() {
            let usage = format!(
                "{} is a file: name a file ending in .safetensors after --out, not a folder",
                from.display()
            );
            return Err(Usage(usage).into());
        }
        anyhow::ensure!(
            !same_folder(from, out),
            "{}: the checkpoint would be written over itself; name another folder after --out",
            out.display()
        );
        folder(from, out, dtype, &mut files)?;
        anyhow::ensure!(
            !files.is_empty(),
            "{}: no weights in this folder or those in it",
            from.display()
        );
    }
    let text: String = files
        .iter()
        .map(|file| {
            format!(
                "{} → {}: {} tensors, {:.1} MB\n",
                file.from.display(),
                file.to.display(),
                file.tensors,
                file.bytes as f64 / 1e6
            )
        })
        .collect();
    session.output.result(text, &Converted { files })
}

fn same_folder(from: &Path, out: &Path) -> bool {
    match (from.canonicalize(), out.canonicalize()) {
        (Ok(from), Ok(out)) => from == out,
        _ => false,
    }
}

/// The weights in `from` under the name that its library looks for, its companions, and its subfolders (a pipeline's).
fn folder(from: &Path, out: &Path, dtype: SaveDtype, files: &mut Vec<File>) -> anyhow::Result<()> {
    let unreadable = || format!("{}: cannot be read", from.display());
    std::fs::create_dir_all(out).with_context(|| format!("{}: cannot be made", out.display()))?;
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(from).with_context(unreadable)? {
        entries.push(entry.with_context(unreadable)?.path());
    }
    entries.sort();
    match Checkpoint::open(from) {
        Ok(_) => files.push(weights(from, &out.join(name_of(from)), dtype)?),
        Err(model_import::ImportError::NoCheckpoint { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    for path in entries {
        let Some(name) = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
        else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            folder(&path, &out.join(&name), dtype, files)?;
            continue;
        }
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        if COMPANIONS.contains(&ending.as_ref()) && !name.ends_with(".index.json") {
            let to = out.join(&name);
            std::fs::copy(&path, &to).with_context(|| {
                format!("{}: cannot be copied to {}", path.display(), to.display())
            })?;
        }
    }
    Ok(())
}

/// diffusers and PEFT look for other names than transformers.
fn name_of(folder: &Path) -> &'static str {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    if folder.join("adapter_config.json").is_file() {
        "adapter_model.safetensors"
    } else if text.contains("\"_diffusers_version\"") || text.contains("\"_class_name\"") {
        "diffusion_pytorch_model.safetensors"
    } else {
        "model.safetensors"
    }
}

fn weights(from: &Path, to: &Path, dtype: SaveDtype) -> anyhow::Result<File> {
    let checkpoint = Checkpoint::open(from)?;
    convert_file(&checkpoint, to, dtype)?;
    Ok(File {
        from: checkpoint.path().to_path_buf(),
        to: to.to_path_buf(),
        tensors: checkpoint.len(),
        bytes: std::fs::metadata(to).map_or(0, |found| found.len()),
    })
}
