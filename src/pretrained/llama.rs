//! Llama and its PEFT adapters from hub folders, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use burn::tensor::backend::Backend;
use model_import::maps::llama as maps;
use model_import::{Checkpoint, ImportError, SaveDtype, load_into, save_from};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::networks::llama::{
    GenerationEnds, LlamaAdapter, LlamaConfig, LlamaConfigError, LlamaForCausalLm,
};
use crate::nn::lora::{LoraConfig, LoraConfigError};
use crate::text::{TextTokenizer, TokenizerError};

/// A Llama folder or adapter folder that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LlamaFolderError {
    /// The file system refused.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not JSON, or not of the expected form.
    #[error("{}: {source}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// An architecture that cannot be built.
    #[error("{}: {source}", .path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key and its value.
        source: LlamaConfigError,
    },
    /// An adapter that cannot be built.
    #[error("{}: {source}", .path.display())]
    Lora {
        /// The configuration file.
        path: PathBuf,
        /// The key and its value.
        source: LoraConfigError,
    },
    /// An adapter of a kind that is not implemented.
    #[error("{}: `{field}` is {found}; only plain LoRA is supported ({way_out})", .path.display())]
    AdapterKind {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        way_out: &'static str,
    },
    /// The weights do not fit.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The tokeniser cannot be read or written.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A language model from a folder.
#[derive(Debug)]
pub struct LlamaFolder<B: Backend> {
    /// Its `config.json`.
    pub config: LlamaConfig,
    /// The network.
    pub model: LlamaForCausalLm<B>,
}

/// Loads the network in `dir` (`config.json` and safetensors, whole or in shards) onto `device`.
/// The tokeniser beside it is [`TextTokenizer::open`]'s.
///
/// # Errors
/// When a file is missing or broken, an option is not implemented, or weights are missing or left over.
pub fn load<B: Backend>(
    dir: &Path,
    device: &B::Device,
) -> Result<LlamaFolder<B>, LlamaFolderError> {
    load_in(dir, FloatDType::F32, device)
}

/// As [`load`], with the weights in `dtype`; no tensor is ever there in f32 beside it.
///
/// # Errors
/// As [`load`], and when a weight is too large for f16.
pub fn load_in<B: Backend>(
    dir: &Path,
    dtype: FloatDType,
    device: &B::Device,
) -> Result<LlamaFolder<B>, LlamaFolderError> {
    let path = dir.join("config.json");
    let mut config: LlamaConfig = read_json(&path)?;
    // What ends a text is said best by the file for generation: chat models have more ends there.
    let generation = dir.join("generation_config.json");
    if generation.is_file() {
        let ends: GenerationEnds = read_json(&generation)?;
        config.eos_token_id = ends.eos_token_id.unwrap_or(config.eos_token_id);
    }
    let mut model = config
        .init(device)
        .map_err(|source| LlamaFolderError::Config { path, source })?;
    load_into(
        &mut model,
        &Checkpoint::open(dir)?.in_dtype(dtype),
        &maps::llama(config.tie_word_embeddings),
    )?;
    Ok(LlamaFolder { config, model })
}

/// Writes a folder that `transformers` loads: configuration, weights, tokeniser. An attached adapter is left out.
///
/// # Errors
/// When a file cannot be written.
pub fn save<B: Backend>(
    dir: &Path,
    config: &LlamaConfig,
    model: &LlamaForCausalLm<B>,
    tokenizer: &TextTokenizer,
    dtype: SaveDtype,
) -> Result<(), LlamaFolderError> {
    create(dir)?;
    let path = dir.join("config.json");
    let mut value = serde_json::to_value(config).map_err(|source| LlamaFolderError::Json {
        path: path.clone(),
        source,
    })?;
    value["architectures"] = json!(["LlamaForCausalLM"]);
    value["dtype"] = json!(match dtype {
        SaveDtype::F16 => "float16",
        SaveDtype::BF16 => "bfloat16",
        SaveDtype::F32 => "float32",
    });
    write_json(&path, &value)?;
    save_from(
        &model.clone().without_adapter(),
        &dir.join("model.safetensors"),
        &maps::llama(config.tie_word_embeddings),
        dtype,
        &BTreeMap::new(),
    )?;
    Ok(tokenizer.save(dir)?)
}

/// `adapter_config.json`, as far as it changes what an adapter computes.
#[derive(Debug, Serialize, Deserialize)]
struct AdapterFile {
    #[serde(default)]
    peft_type: Option<String>,
    r: usize,
    lora_alpha: f64,
    target_modules: Value,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    rank_pattern: Value,
    #[serde(default)]
    alpha_pattern: Value,
    #[serde(default)]
    modules_to_save: Value,
    #[serde(default)]
    layers_to_transform: Value,
    #[serde(default)]
    layer_replication: Value,
    #[serde(default)]
    trainable_token_indices: Value,
}

impl AdapterFile {
    /// The adapter's configuration, or the first key that asks for more than plain LoRA.
    ///
    /// Where `target_modules` is a regular expression or `all-linear`, the projections are those of `weights`.
    fn config(&self, path: &Path, weights: &Checkpoint) -> Result<LoraConfig, LlamaFolderError> {
        let refuse = |field, found: String, way_out| {
            Err(LlamaFolderError::AdapterKind {
                path: path.into(),
                field,
                found,
                way_out,
            })
        };
        if let Some(kind) = self.peft_type.as_deref().filter(|kind| *kind != "LORA") {
            return refuse("peft_type", kind.into(), "peft_type LORA");
        }
        let flags = [
            ("use_dora", self.use_dora),
            ("fan_in_fan_out", self.fan_in_fan_out),
            ("lora_bias", self.lora_bias),
        ];
        if let Some((field, _)) = flags.into_iter().find(|(_, set)| *set) {
            return refuse(field, "true".into(), "export the adapter without it");
        }
        if let Some(bias) = self.bias.as_deref().filter(|bias| *bias != "none") {
            return refuse("bias", bias.into(), "bias none");
        }
        let extras = [
            ("rank_pattern", &self.rank_pattern),
            ("alpha_pattern", &self.alpha_pattern),
            ("modules_to_save", &self.modules_to_save),
            ("layers_to_transform", &self.layers_to_transform),
            ("layer_replication", &self.layer_replication),
            ("trainable_token_indices", &self.trainable_token_indices),
        ];
        if let Some((field, value)) = extras.into_iter().find(|(_, value)| !is_empty(value)) {
            return refuse(field, value.to_string(), "one rank for all layers");
        }
        let target_modules = match &self.target_modules {
            Value::String(_) => adapted_projections(weights),
            names => match serde_json::from_value::<Vec<String>>(names.clone()) {
                Ok(names) => names.iter().map(|name| projection(name)).collect(),
                Err(_) => {
                    let way_out = "a list of projection names";
                    return refuse("target_modules", names.to_string(), way_out);
                }
            },
        };
        let alpha = if self.use_rslora {
            self.lora_alpha * (self.r as f64).sqrt()
        } else {
            self.lora_alpha
        };
        Ok(LoraConfig {
            r: self.r,
            alpha,
            target_modules,
        })
    }
}

/// A target's projection: PEFT also takes the part before it, `self_attn.q_proj`.
fn projection(target: &str) -> String {
    let plain = match target.rsplit_once('.') {
        Some(("self_attn" | "mlp", name)) => name,
        _ => target,
    };
    plain.to_string()
}

/// The projections that have an update in some layer: `…q_proj.lora_A.weight`.
fn adapted_projections(weights: &Checkpoint) -> Vec<String> {
    let names: BTreeSet<&str> = weights
        .names()
        .filter_map(|name| name.strip_suffix(".lora_A.weight")?.rsplit('.').next())
        .collect();
    names.into_iter().map(String::from).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

/// Loads the PEFT adapter in `dir` for `model`: its configuration, and the updates on the network's device.
/// [`LlamaForCausalLm::with_adapter`] attaches them.
///
/// # Errors
/// When a file is missing or broken, the adapter is not plain LoRA, or it does not fit the network.
pub fn load_adapter<B: Backend>(
    dir: &Path,
    model: &LlamaForCausalLm<B>,
) -> Result<(LoraConfig, LlamaAdapter<B>), LlamaFolderError> {
    let path = dir.join("adapter_config.json");
    let file: AdapterFile = read_json(&path)?;
    let weights = ["adapter_model.safetensors", "adapter_model.bin"].map(|name| dir.join(name));
    let [safetensors, pickle] = &weights;
    let weights = Checkpoint::open(match safetensors.exists() || !pickle.exists() {
        true => safetensors,
        false => pickle,
    })?;
    let config = file.config(&path, &weights)?;
    let mut adapter = LlamaAdapter::zeros(model, &config)
        .map_err(|source| LlamaFolderError::Lora { path, source })?;
    load_into(&mut adapter, &weights, &maps::lora())?;
    Ok((config, adapter))
}

/// Writes a folder that PEFT loads onto the base model named `base_model`.
///
/// # Errors
/// When a file cannot be written.
pub fn save_adapter<B: Backend>(
    dir: &Path,
    config: &LoraConfig,
    adapter: &LlamaAdapter<B>,
    base_model: &str,
) -> Result<(), LlamaFolderError> {
    create(dir)?;
    write_json(
        &dir.join("adapter_config.json"),
        &json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "inference_mode": true,
            "r": config.r,
            "lora_alpha": config.alpha,
            "lora_dropout": 0.0,
            "target_modules": config.target_modules,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "modules_to_save": null,
        }),
    )?;
    Ok(save_from(
        adapter,
        &dir.join("adapter_model.safetensors"),
        &maps::lora(),
        SaveDtype::F32,
        &BTreeMap::new(),
    )?)
}

fn create(dir: &Path) -> Result<(), LlamaFolderError> {
    std::fs::create_dir_all(dir).map_err(|source| LlamaFolderError::File {
        path: dir.into(),
        source,
    })
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, LlamaFolderError> {
    let bytes = std::fs::read(path).map_err(|source| LlamaFolderError::File {
        path: path.into(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|source| LlamaFolderError::Json {
        path: path.into(),
        source,
    })
}

/// Writes to a temporary beside the file, then renames.
fn write_json(path: &Path, value: &Value) -> Result<(), LlamaFolderError> {
    let attempt = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        writeln!(file, "{}", serde_json::to_string_pretty(value)?)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    attempt().map_err(|source| LlamaFolderError::File {
        path: path.into(),
        source,
    })
}
