//! BLIP-2 from a hub folder, and back into one.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::FloatDType;
use burn::tensor::backend::Backend;
use model_import::{Checkpoint, KeyMap, SaveDtype, load_into, maps, save_from};
use serde_json::{Value, json};

use super::folder::{FolderError, HubFolder, write_json};
use crate::networks::blip2::{
    Blip2Config, Blip2ConfigError, Blip2ForConditionalGeneration, TextConfig, TokenIds,
};
use crate::networks::clip::ClipPreprocessing;
use crate::networks::clip::preprocessing::Resize;
use crate::text::TextTokenizer;

const HEAD: &str = "language_model.lm_head.weight";
const OPT_WORDS: &str = "language_model.model.decoder.embed_tokens.weight";

/// A BLIP-2 folder, loaded.
#[derive(Debug, Clone)]
pub struct PretrainedBlip2<B: Backend> {
    /// Its configuration.
    pub config: Blip2Config,
    /// Its weights.
    pub network: Blip2ForConditionalGeneration<B>,
    /// Its tokeniser.
    pub tokenizer: TextTokenizer,
    /// What it does to pictures first.
    pub preprocessing: ClipPreprocessing,
    /// A digest of weights and configuration, for the feature store.
    pub fingerprint: String,
}

/// Opens a BLIP-2 with OPT or Flan-T5, its tokeniser and its preprocessing.
///
/// # Errors
/// Another architecture, a missing file, weights that do not fit.
pub fn open<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<PretrainedBlip2<B>, FolderError> {
    open_in(path, FloatDType::F32, device)
}

/// As [`open`], with the weights in `dtype`; no tensor is ever there in f32 beside it.
///
/// # Errors
/// As [`open`], and when a weight is too large for f16.
pub fn open_in<B: Backend>(
    path: &Path,
    dtype: FloatDType,
    device: &B::Device,
) -> Result<PretrainedBlip2<B>, FolderError> {
    let folder = HubFolder::open(path)?;
    let (config, network) = network(&folder, dtype, device)?;
    let side = config.vision_config.image_size as u32;
    let file = "preprocessor_config.json";
    let preprocessing = match folder.json(file)? {
        None => blip_preprocessing(side),
        Some(value) => ClipPreprocessing::from_json(&value, side)
            .map_err(|error| FolderError::preprocessing(&path.join(file), error))?,
    };
    Ok(PretrainedBlip2 {
        network,
        tokenizer: TextTokenizer::open(path)?,
        preprocessing,
        fingerprint: folder.fingerprint()?,
        config,
    })
}

/// Opens a BLIP-2 without tokeniser and preprocessing.
///
/// # Errors
/// Another architecture, a missing file, weights that do not fit.
pub fn open_network<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<(Blip2Config, Blip2ForConditionalGeneration<B>), FolderError> {
    network(&HubFolder::open(path)?, FloatDType::F32, device)
}

fn network<B: Backend>(
    folder: &HubFolder,
    dtype: FloatDType,
    device: &B::Device,
) -> Result<(Blip2Config, Blip2ForConditionalGeneration<B>), FolderError> {
    folder.expect(&["blip-2"])?;
    let mut config: Blip2Config = folder.parse()?;
    if let Some(end) = end_token(folder)? {
        config.text_config.set_end_tokens(end);
    }
    let checkpoint = folder.weights()?.in_dtype(dtype);
    let key_map = settle_head(&mut config, &checkpoint)?;
    let refused = |error: Blip2ConfigError| FolderError::Configuration {
        path: folder.path().join("config.json"),
        reason: error.to_string(),
    };
    let mut network = config.init::<B>(device).map_err(refused)?;
    load_into(&mut network, &checkpoint, &key_map)?;
    Ok((config, network))
}

/// The end token of `generation_config.json`, which wins over that of `config.json`.
fn end_token(folder: &HubFolder) -> Result<Option<TokenIds>, FolderError> {
    let Some(generation) = folder.json("generation_config.json")? else {
        return Ok(None);
    };
    match generation.get("eos_token_id") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => folder.parse_value(value).map(Some),
    }
}

/// Whether the head is its own matrix: the file decides, whatever the configuration says.
fn settle_head(config: &mut Blip2Config, checkpoint: &Checkpoint) -> Result<KeyMap, FolderError> {
    let key_map = match config.text_config {
        TextConfig::Opt(_) => maps::blip2::blip2(),
        TextConfig::T5(_) => maps::blip2::blip2_t5(checkpoint),
    };
    let words = match config.text_config {
        TextConfig::Opt(_) => OPT_WORDS,
        TextConfig::T5(_) => maps::blip2::t5_words(checkpoint),
    };
    let tied = match checkpoint.contains(HEAD) && checkpoint.contains(words) {
        true if config.text_config.ties_head() => {
            checkpoint.tensor(HEAD)? == checkpoint.tensor(words)?
        }
        true => false,
        false => !checkpoint.contains(HEAD),
    };
    config.text_config.set_tied_head(tied);
    Ok(if tied { key_map.ignore(HEAD) } else { key_map })
}

/// BLIP's preprocessing: exactly the side wanted, no crop, CLIP's means and deviations.
fn blip_preprocessing(side: u32) -> ClipPreprocessing {
    ClipPreprocessing {
        resize: Some(Resize::Exact([side, side])),
        ..ClipPreprocessing::clip(side)
    }
}

/// Writes a BLIP-2 as a hub folder that transformers' `Blip2ForConditionalGeneration` loads.
///
/// # Errors
/// When a file cannot be written.
pub fn save<B: Backend>(
    path: &Path,
    config: &Blip2Config,
    network: &Blip2ForConditionalGeneration<B>,
    tokenizer: &TextTokenizer,
    preprocessing: &ClipPreprocessing,
    dtype: SaveDtype,
) -> Result<(), FolderError> {
    write_json(&path.join("config.json"), &config_json(config))?;
    let text = &config.text_config;
    let mut generation = json!({
        "bos_token_id": text.start_token(),
        "eos_token_id": json!(text)["eos_token_id"],
        "pad_token_id": text.pad_token(),
    });
    if let TextConfig::T5(_) = text {
        let start = json!(text.decoder_start());
        put(&mut generation, "decoder_start_token_id", start);
    }
    write_json(&path.join("generation_config.json"), &generation)?;
    let mut pictures = preprocessing.to_json();
    put(
        &mut pictures,
        "image_processor_type",
        json!("BlipImageProcessor"),
    );
    put(&mut pictures, "processor_class", json!("Blip2Processor"));
    write_json(&path.join("preprocessor_config.json"), &pictures)?;
    let processor =
        json!({"num_query_tokens": config.num_query_tokens, "processor_class": "Blip2Processor"});
    write_json(&path.join("processor_config.json"), &processor)?;
    tokenizer.save(path)?;
    save_from(
        network,
        &path.join("model.safetensors"),
        &maps::blip2::blip2(),
        dtype,
        &BTreeMap::new(),
    )?;
    Ok(())
}

fn config_json(config: &Blip2Config) -> Value {
    let mut value = json!(config);
    put(
        &mut value,
        "architectures",
        json!(["Blip2ForConditionalGeneration"]),
    );
    let decoder_only = matches!(config.text_config, TextConfig::Opt(_));
    put(
        &mut value,
        "use_decoder_only_language_model",
        json!(decoder_only),
    );
    put(
        &mut value["vision_config"],
        "model_type",
        json!("blip_2_vision_model"),
    );
    let width = config.vision_config.hidden_size;
    put(
        &mut value["qformer_config"],
        "encoder_hidden_size",
        json!(width),
    );
    let text = &config.text_config;
    if let TextConfig::Opt(text) = text {
        put(
            &mut value["text_config"],
            "word_embed_proj_dim",
            json!(text.word_width()),
        );
    }
    put(&mut value, "tie_word_embeddings", json!(text.ties_head()));
    value
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.into(), value);
    }
}
