//! The preference model: built over the language model, saved as what it trains, loaded again.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use burn::module::AutodiffModule as _;
use burn::tensor::Device;
use model_import::{read_tensors_with_metadata, write_tensors};

use super::{Generation, Language};
use crate::app::backend::Backend;
use crate::app::config::RunConfig;
use crate::generation::preference::PreferenceModel;
use crate::optimisation::parameters::{Selection, collect, restore};

const WEIGHTS: &str = "preference.safetensors";

/// A fresh model over `language`, whose device is `device`.
///
/// # Errors
/// When sizes in `[preference]` do not fit the networks.
pub fn fresh(
    config: &RunConfig,
    language: &Language,
    generation: &Generation,
    device: &Device<Backend>,
) -> anyhow::Result<PreferenceModel<Backend>> {
    let model = config.preference.init(
        language.model.clone(),
        generation.shape(),
        config.training.seed,
        device,
    );
    model.context("[preference]")
}

/// Saves what was trained, and which frozen networks it was trained with.
///
/// # Errors
/// When the file cannot be written.
pub fn save(
    folder: &Path,
    model: &PreferenceModel<Backend>,
    language: &Language,
    generation: &Generation,
) -> anyhow::Result<()> {
    let tensors = collect::<Backend, _>(model, Selection::Trainable);
    let metadata: BTreeMap<String, String> = [
        ("language_model".to_string(), language.fingerprint.clone()),
        ("generator".to_string(), generation.fingerprint.clone()),
    ]
    .into();
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot write {}", folder.display()))?;
    write_tensors(&folder.join(WEIGHTS), &tensors, &metadata)?;
    Ok(())
}

/// The trained model of `folder`, without a graph. `language` must live on `device`, which records one.
///
/// # Errors
/// When there is none, it was trained with other networks, or under other sizes.
pub fn open(
    config: &RunConfig,
    folder: &Path,
    language: &Language,
    generation: &Generation,
    device: &Device<Backend>,
) -> anyhow::Result<PreferenceModel<Backend>> {
    let path = folder.join(WEIGHTS);
    anyhow::ensure!(
        path.is_file(),
        "{} is not there: `ragar train` has not finished in this folder",
        path.display()
    );
    let (tensors, metadata) = read_tensors_with_metadata(&path)?;
    for (name, key, found) in [
        (
            "language_model",
            "models.language_model",
            &language.fingerprint,
        ),
        ("generator", "models.generator", &generation.fingerprint),
    ] {
        anyhow::ensure!(
            metadata.get(name) == Some(found),
            "{}: trained with another {key} than the one configured now",
            path.display()
        );
    }
    let model = fresh(config, language, generation, device)?;
    let model = restore::<Backend, _>(model, &tensors, Selection::Trainable)
        .with_context(|| format!("{} does not fit [preference]", path.display()))?;
    Ok(model.valid())
}
