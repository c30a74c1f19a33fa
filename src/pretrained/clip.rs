//! CLIP from a hub folder, and back into one.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::backend::Backend;
use model_import::{SaveDtype, load_into, maps, save_from};
use serde_json::{Value, json};

use super::folder::{FolderError, HubFolder, write_json};
use crate::networks::clip::{
    Clip, ClipConfig, ClipPreprocessing, ClipTextConfig, ClipTextModel, ClipTextProjected,
    ClipVisionConfig, ClipVisionModel, ClipVisionProjected,
};
use crate::text::TextTokenizer;

/// A CLIP folder, loaded.
#[derive(Debug, Clone)]
pub struct PretrainedClip<B: Backend> {
    /// Its configuration.
    pub config: ClipConfig,
    /// Its weights.
    pub network: Clip<B>,
    /// Its tokeniser.
    pub tokenizer: TextTokenizer,
    /// What it does to pictures first.
    pub preprocessing: ClipPreprocessing,
    /// A digest of weights and configuration, for the feature store.
    pub fingerprint: String,
}

/// Opens a whole CLIP (`model_type` clip) with tokeniser and preprocessing.
///
/// # Errors
/// Another architecture, a missing file, weights that do not fit.
pub fn open<B: Backend>(path: &Path, device: &B::Device) -> Result<PretrainedClip<B>, FolderError> {
    let folder = HubFolder::open(path)?;
    let (config, network) = network(&folder, device)?;
    let preprocessor_path = path.join("preprocessor_config.json");
    let side = config.vision_config.image_size as u32;
    let preprocessing = match folder.json("preprocessor_config.json")? {
        None => ClipPreprocessing::clip(side),
        Some(value) => ClipPreprocessing::from_json(&value, side)
            .map_err(|error| FolderError::preprocessing(&preprocessor_path, error))?,
    };
    Ok(PretrainedClip {
        network,
        tokenizer: TextTokenizer::open(path)?,
        preprocessing,
        fingerprint: folder.fingerprint()?,
        config,
    })
}

/// Opens a whole CLIP without tokeniser and preprocessing.
///
/// # Errors
/// Another architecture, a missing file, weights that do not fit.
pub fn open_network<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<(ClipConfig, Clip<B>), FolderError> {
    network(&HubFolder::open(path)?, device)
}

fn network<B: Backend>(
    folder: &HubFolder,
    device: &B::Device,
) -> Result<(ClipConfig, Clip<B>), FolderError> {
    folder.expect(&["clip"])?;
    let config: ClipConfig = folder.parse()?;
    config
        .validate()
        .map_err(|error| FolderError::clip(&folder.path().join("config.json"), error))?;
    let mut network = config.init::<B>(device);
    load_into(&mut network, &folder.weights()?, &maps::clip::clip())?;
    Ok((config, network))
}

/// Opens a text tower: a `text_encoder` folder of a pipeline, or a whole CLIP.
///
/// # Errors
/// Another architecture, a missing file, weights that do not fit.
pub fn open_text_model<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<(ClipTextConfig, ClipTextModel<B>), FolderError> {
    let (folder, config) = text_folder(path)?;
    let checkpoint = folder.weights()?;
    let mut network = config.init::<B>(device);
    load_into(
        &mut network,
        &checkpoint,
        &maps::clip::text_model(&checkpoint),
    )?;
    Ok((config, network))
}

/// Opens a vision tower: a folder of its own, or a whole CLIP.
///
/// # Errors
/// Another architecture, a missing file, weights that do not fit.
pub fn open_vision_model<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<(ClipVisionConfig, ClipVisionModel<B>), FolderError> {
    let (folder, config) = vision_folder(path)?;
    let checkpoint = folder.weights()?;
    let mut network = config.init::<B>(device);
    load_into(
        &mut network,
        &checkpoint,
        &maps::clip::vision_model(&checkpoint),
    )?;
    Ok((config, network))
}

/// Opens a text tower with its projection, where the file has one: a folder of its own, or a whole CLIP.
///
/// # Errors
/// Another architecture, a missing file, weights that do not fit.
pub fn open_text<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<(ClipTextConfig, ClipTextProjected<B>), FolderError> {
    let (folder, config) = text_folder(path)?;
    let checkpoint = folder.weights()?;
    let projected = checkpoint.contains("text_projection.weight");
    let mut network = config.init_projected::<B>(projected, device);
    let key_map = maps::clip::text_projected(&checkpoint);
    load_into(&mut network, &checkpoint, &key_map)?;
    Ok((config, network))
}

/// Opens a vision tower with its projection, where the file has one: a folder of its own, or a whole CLIP.
///
/// # Errors
/// Another architecture, a missing file, weights that do not fit.
pub fn open_vision<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<(ClipVisionConfig, ClipVisionProjected<B>), FolderError> {
    let (folder, config) = vision_folder(path)?;
    let checkpoint = folder.weights()?;
    let projected = checkpoint.contains("visual_projection.weight");
    let mut network = config.init_projected::<B>(projected, device);
    let key_map = maps::clip::vision_projected(&checkpoint);
    load_into(&mut network, &checkpoint, &key_map)?;
    Ok((config, network))
}

/// Writes a whole CLIP as a hub folder that transformers' `CLIPModel` loads.
///
/// # Errors
/// When a file cannot be written.
pub fn save<B: Backend>(
    path: &Path,
    config: &ClipConfig,
    network: &Clip<B>,
    tokenizer: &TextTokenizer,
    preprocessing: &ClipPreprocessing,
    dtype: SaveDtype,
) -> Result<(), FolderError> {
    write_json(&path.join("config.json"), &config_json(config, tokenizer))?;
    write_json(
        &path.join("preprocessor_config.json"),
        &preprocessing.to_json(),
    )?;
    tokenizer.save(path)?;
    save_from(
        network,
        &path.join("model.safetensors"),
        &maps::clip::clip(),
        dtype,
        &BTreeMap::new(),
    )?;
    Ok(())
}

/// Writes a text tower as a `text_encoder` folder of a pipeline.
///
/// # Errors
/// When a file cannot be written.
pub fn save_text_model<B: Backend>(
    path: &Path,
    config: &ClipTextConfig,
    network: &ClipTextModel<B>,
    tokenizer: &TextTokenizer,
    dtype: SaveDtype,
) -> Result<(), FolderError> {
    let mut value = tower_json(json!(config), "clip_text_model", "CLIPTextModel");
    put_token_ids(&mut value, tokenizer);
    write_json(&path.join("config.json"), &value)?;
    save_from(
        network,
        &path.join("model.safetensors"),
        &maps::clip::text_encoder(),
        dtype,
        &BTreeMap::new(),
    )?;
    Ok(())
}

/// The folder of a text tower, alone or in a whole CLIP, and the tower's configuration.
fn text_folder(path: &Path) -> Result<(HubFolder, ClipTextConfig), FolderError> {
    let folder = HubFolder::open(path)?;
    folder.expect(&["clip_text_model", "clip"])?;
    let config: ClipTextConfig = if folder.model_type() == "clip" {
        let whole: ClipConfig = folder.parse()?;
        ClipTextConfig {
            projection_dim: whole.projection_dim,
            ..whole.text_config
        }
    } else {
        folder.parse()?
    };
    config
        .validate()
        .map_err(|error| FolderError::clip(&path.join("config.json"), error))?;
    Ok((folder, config))
}

/// The folder of a vision tower, alone or in a whole CLIP, and the tower's configuration.
fn vision_folder(path: &Path) -> Result<(HubFolder, ClipVisionConfig), FolderError> {
    let folder = HubFolder::open(path)?;
    folder.expect(&["clip_vision_model", "clip"])?;
    let config: ClipVisionConfig = if folder.model_type() == "clip" {
        let whole: ClipConfig = folder.parse()?;
        ClipVisionConfig {
            projection_dim: whole.projection_dim,
            ..whole.vision_config
        }
    } else {
        folder.parse()?
    };
    config
        .validate()
        .map_err(|error| FolderError::clip(&path.join("config.json"), error))?;
    Ok((folder, config))
}

fn config_json(config: &ClipConfig, tokenizer: &TextTokenizer) -> Value {
    let mut value = tower_json(json!(config), "clip", "CLIPModel");
    value["text_config"]["model_type"] = json!("clip_text_model");
    put_token_ids(&mut value["text_config"], tokenizer);
    value["vision_config"]["model_type"] = json!("clip_vision_model");
    value
}

fn tower_json(mut value: Value, model_type: &str, architecture: &str) -> Value {
    value["model_type"] = json!(model_type);
    value["architectures"] = json!([architecture]);
    value
}

fn put_token_ids(value: &mut Value, tokenizer: &TextTokenizer) {
    value["bos_token_id"] = json!(tokenizer.bos_id());
    value["pad_token_id"] = json!(tokenizer.pad_id());
}
