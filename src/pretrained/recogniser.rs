//! A recogniser of glyphs or styles from a folder, and back into one.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::backend::Backend;
use model_import::{KeyMap, SaveDtype, load_into, save_from};
use serde_json::json;

use super::folder::{FolderError, HubFolder, write_json};
use crate::networks::recogniser::{MODEL_TYPE, Recogniser, RecogniserConfig};

/// Opens a folder that `ragar pretrain glyph-recogniser` or `style-recogniser` left.
///
/// # Errors
/// Another architecture, a missing file, weights that do not fit.
pub fn open<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<(RecogniserConfig, Recogniser<B>), FolderError> {
    let folder = HubFolder::open(path)?;
    folder.expect(&[MODEL_TYPE])?;
    let config: RecogniserConfig = folder.parse()?;
    let mut network = config
        .init::<B>(device)
        .map_err(|error| FolderError::Configuration {
            path: path.join("config.json"),
            reason: error.to_string(),
        })?;
    load_into(&mut network, &folder.weights()?, &KeyMap::identity())?;
    Ok((config, network))
}

/// Writes `config.json` and `model.safetensors`.
///
/// # Errors
/// When a file cannot be written, or a value does not fit `dtype`.
pub fn save<B: Backend>(
    path: &Path,
    config: &RecogniserConfig,
    network: &Recogniser<B>,
    dtype: SaveDtype,
) -> Result<(), FolderError> {
    write_json(&path.join("config.json"), &json!(config))?;
    let weights = path.join("model.safetensors");
    save_from(
        network,
        &weights,
        &KeyMap::identity(),
        dtype,
        &BTreeMap::new(),
    )?;
    Ok(())
}
