//! `ragar model inspect`: what a folder of a network holds, from headers alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use model_import::Checkpoint;
use serde::Serialize;
use serde_json::Value;

use crate::app::session::Session;
use crate::pretrained::hub;

/// One checkpoint: a network, or a component of a pipeline.
#[derive(Debug, Serialize)]
struct Component {
    /// `unet` within a pipeline, empty for a single network.
    name: String,
    /// The hub's class name.
    architecture: String,
    /// Number of values in all tensors.
    parameters: usize,
    /// Values per data type.
    dtypes: BTreeMap<String, usize>,
    files: Vec<File>,
    bytes: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<Tensor>,
}

#[derive(Debug, Serialize)]
struct File {
    path: PathBuf,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    architecture: String,
    components: Vec<Component>,
    parameters: usize,
    bytes: u64,
}

/// Prints what `path` holds.
pub fn inspect(session: &Session, path: &Path, tensors: bool) -> anyhow::Result<()> {
    let located = hub::located(path);
    let path = located.as_path();
    let pipeline = path.join("model_index.json");
    let (architecture, components) = if pipeline.is_file() {
        let index = read_json(&pipeline)?;
        let name = text(&index, "_class_name").unwrap_or_else(|| "pipeline".into());
        (name, pipeline_components(path, &index, tensors)?)
    } else {
        let component = component(path, "", tensors)?;
        (component.architecture.clone(), vec![component])
    };
    let report = Report {
        path: path.to_path_buf(),
        architecture,
        parameters: components.iter().map(|part| part.parameters).sum(),
        bytes: components.iter().map(|part| part.bytes).sum(),
        components,
    };
    session.output.result(describe(&report), &report)
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let bytes =
        std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{}: not JSON", path.display()))
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(String::from)
}

/// The networks that `model_index.json` names; tokenisers and schedulers have no weights.
fn pipeline_components(
    path: &Path,
    index: &Value,
    tensors: bool,
) -> anyhow::Result<Vec<Component>> {
    let mut components = Vec::new();
    let entries = index.as_object().into_iter().flatten();
    for (name, value) in entries.filter(|(name, _)| !name.starts_with('_')) {
        // A component is [library, class]; an absent one [null, null].
        let Some(class) = value.get(1).and_then(Value::as_str) else {
            continue;
        };
        let weightless = ["Tokenizer", "Scheduler", "Processor", "Extractor"];
        let folder = path.join(name);
        if weightless.iter().any(|word| class.contains(word)) {
            anyhow::ensure!(
                folder.is_dir(),
                "{}: named in model_index.json but not there",
                folder.display()
            );
            continue;
        }
        // Not read, and left out by `ragar model fetch`.
        if name == "safety_checker" && !folder.exists() {
            continue;
        }
        components.push(component(&folder, name, tensors)?);
    }
    Ok(components)
}

fn component(path: &Path, name: &str, tensors: bool) -> anyhow::Result<Component> {
    let checkpoint = Checkpoint::open(path)?;
    let mut dtypes = BTreeMap::new();
    let mut list = Vec::new();
    for tensor in checkpoint.names() {
        let Some(info) = checkpoint.info(tensor) else {
            continue;
        };
        let dtype = format!("{}", info.dtype);
        let count: usize = info.shape.iter().product();
        *dtypes.entry(dtype.clone()).or_insert(0) += count;
        if tensors {
            list.push(Tensor {
                name: tensor.to_string(),
                dtype,
                shape: info.shape.clone(),
            });
        }
    }
    let files: Vec<File> = checkpoint
        .files()
        .map(|file| File {
            path: file.to_path_buf(),
            bytes: std::fs::metadata(file).map_or(0, |metadata| metadata.len()),
        })
        .collect();
    Ok(Component {
        name: name.to_string(),
        architecture: architecture(path)?,
        parameters: checkpoint.num_values(),
        dtypes,
        bytes: files.iter().map(|file| file.bytes).sum(),
        files,
        metadata: checkpoint.metadata(),
        tensors: list,
    })
}

/// The class that the configuration beside the weights names.
fn architecture(path: &Path) -> anyhow::Result<String> {
    let folder = match path.is_dir() {
        true => path,
        false => path.parent().unwrap_or(Path::new("")),
    };
    let config = folder.join("config.json");
    if config.is_file() {
        let config = read_json(&config)?;
        let named = config.get("architectures").and_then(|list| list.get(0));
        return Ok(named
            .and_then(Value::as_str)
            .map(String::from)
            .or_else(|| text(&config, "_class_name"))
            .or_else(|| text(&config, "model_type"))
            .unwrap_or_else(|| "unnamed in config.json".into()));
    }
    let adapter = folder.join("adapter_config.json");
    if adapter.is_file() {
        let adapter = read_json(&adapter)?;
        let kind = text(&adapter, "peft_type").unwrap_or_else(|| "adapter".into());
        let rank = adapter.get("r").and_then(Value::as_u64);
        return Ok(match rank {
            Some(rank) => format!("{kind} adapter of rank {rank}"),
            None => format!("{kind} adapter"),
        });
    }
    Ok("unknown (no config.json beside the weights)".into())
}

/// 1234567 → `1.23 M`.
fn short(count: usize) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.1} k", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", count as f64 / 1e6),
        _ => format!("{:.2} B", count as f64 / 1e9),
    }
}

fn describe(report: &Report) -> String {
    let mut text = format!(
        "{}: {}, {} parameters, {:.1} MB\n",
        report.path.display(),
        report.architecture,
        short(report.parameters),
        report.bytes as f64 / 1e6
    );
    for part in &report.components {
        let dtypes: Vec<String> = part
            .dtypes
            .iter()
            .map(|(dtype, count)| match part.dtypes.len() {
                1 => dtype.clone(),
                _ => format!("{dtype} × {}", short(*count)),
            })
            .collect();
        let shards = match part.files.len() {
            1 => "1 file".to_string(),
            count => format!("{count} shards"),
        };
        if !part.name.is_empty() {
            let _ = write!(text, "  {:<14} {}, ", part.name, part.architecture);
        } else {
            text += "  ";
        }
        let _ = writeln!(
            text,
            "{} parameters, {}, {shards}, {:.1} MB",
            short(part.parameters),
            dtypes.join(" + "),
            part.bytes as f64 / 1e6
        );
        for tensor in &part.tensors {
            let _ = writeln!(
                text,
                "    {} {} {:?}",
                tensor.name, tensor.dtype, tensor.shape
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn counts_are_short() {
        assert_eq!(short(999), "999");
        assert_eq!(short(31_958_784), "31.96 M");
        assert_eq!(short(6_738_415_616), "6.74 B");
    }
}
