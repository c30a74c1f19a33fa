//! The preference model: built over the language model, saved as what it trains, loaded again.
//!
//! A finished run holds `adapter/`, which PEFT loads onto the language model, `preference.safetensors` with the
//! `[IMG]` rows, the mapper, `W_t` and the fusion, and a model card. Earlier runs hold everything in the one file.

mod card;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use burn::module::AutodiffModule as _;
use burn::tensor::Device;
use model_import::{read_tensors_with_metadata, write_tensors};
use sha2::{Digest, Sha256};

use super::{Generation, Language};
use crate::app::backend::Backend;
use crate::app::config::RunConfig;
use crate::app::files;
use crate::generation::preference::PreferenceModel;
use crate::optimisation::parameters::{Selection, collect, restore};
use crate::pretrained::llama;

/// Everything trained but the adapter; written last, so that a folder with it is finished.
pub const WEIGHTS: &str = "preference.safetensors";
/// The language model's adapter, a PEFT folder.
pub const ADAPTER: &str = "adapter";
/// The model card.
pub const CARD: &str = "README.md";

/// Whose parameters stand in the adapter's own folder.
const LANGUAGE_MODEL: &str = "llama.";

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

/// Saves what was trained, and which frozen networks it was trained with. The card is written from the `config.toml`
/// and the logs that `folder` holds.
///
/// # Errors
/// When a file cannot be written.
pub fn save(
    folder: &Path,
    model: &PreferenceModel<Backend>,
    language: &Language,
    generation: &Generation,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot write {}", folder.display()))?;
    let adapter = model.llama.adapter().context("the model has no adapter")?;
    let config = adapter.config().context("the adapter is empty")?;
    files::write_folder(&folder.join(ADAPTER), |aside| {
        let base = language.named.display().to_string();
        Ok(llama::save_adapter(aside, &config, &adapter, &base)?)
    })?;
    let mut tensors = collect::<Backend, _>(model, Selection::Trainable);
    tensors.retain(|name, _| !name.starts_with(LANGUAGE_MODEL));
    let metadata: BTreeMap<String, String> = [
        ("language_model".to_string(), language.fingerprint.clone()),
        ("generator".to_string(), generation.fingerprint.clone()),
    ]
    .into();
    let card = card::card(folder, language, &config)?;
    files::write(&folder.join(CARD), card.as_bytes())?;
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
    finished(folder)?;
    let path = folder.join(WEIGHTS);
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
    let misfit = || format!("{} does not fit [preference]", path.display());
    let restored = |model| restore::<Backend, _>(model, &tensors, Selection::Trainable);
    if tensors.keys().any(|name| name.starts_with(LANGUAGE_MODEL)) {
        return Ok(restored(model).with_context(misfit)?.valid());
    }
    let base = model.llama.without_adapter();
    let (_, adapter) = llama::load_adapter(&folder.join(ADAPTER), &base)?;
    let without = PreferenceModel {
        llama: base,
        ..model
    };
    let mut model = restored(without).with_context(misfit)?;
    model.llama = model.llama.with_adapter(&adapter);
    Ok(model.valid())
}

/// Refuses a folder where no training has finished, and says what to do.
///
/// # Errors
/// When the trained weights are not there.
pub fn finished(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(WEIGHTS);
    if path.is_file() {
        return Ok(());
    }
    let place = folder.display();
    anyhow::bail!(match folder.join("checkpoints").is_dir() {
        true => format!(
            "{} is not there: this training has not finished; run `ragar train --out {place}` again to go on",
            path.display()
        ),
        false => format!(
            "{} is not there: {place} is not the folder of a finished `ragar train`",
            path.display()
        ),
    })
}

/// A short name for what was trained: a digest over the weights of the run in `folder`.
///
/// # Errors
/// When a file cannot be read.
pub fn fingerprint(folder: &Path) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    for name in [
        WEIGHTS.to_string(),
        format!("{ADAPTER}/adapter_config.json"),
        format!("{ADAPTER}/adapter_model.safetensors"),
    ] {
        let path = folder.join(&name);
        // Earlier runs have the first file alone.
        if name == WEIGHTS || path.is_file() {
            let reading = || format!("{} cannot be read", path.display());
            let mut file = std::fs::File::open(&path).with_context(reading)?;
            std::io::copy(&mut file, &mut digest).with_context(reading)?;
        }
    }
    Ok(format!("{:.16x}", digest.finalize()))
}
