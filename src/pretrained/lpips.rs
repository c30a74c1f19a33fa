//! LPIPS from a folder: a classifier's weights and the published heads.

use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use model_import::{Checkpoint, load_into, maps};

use super::folder::{FolderError, read_json};
use crate::networks::lpips::{Lpips, Net, SqueezeNet};

/// The heads' file, in the order looked for.
const HEADS: [&str; 6] = [
    "lin.safetensors",
    "lin.pth",
    "lin.bin",
    "vgg.pth",
    "alex.pth",
    "squeeze.pth",
];
/// The trunk's, before any other single file.
const TRUNKS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// What a trunk's file ends in.
const ENDINGS: [&str; 4] = ["safetensors", "pth", "pt", "bin"];

/// Opens a folder with a classifier (`model.safetensors`, or torchvision's own `.pth`) and the heads (`lin.safetensors`,
/// or the published `vgg.pth`, `alex.pth`, `squeeze.pth`).
///
/// Which classifier it is follows from its tensors; `net`, or `"net"` in a `config.json`, may say it, too, and then has
/// to agree.
///
/// # Errors
/// A missing file, tensors of no known classifier or of another one than said, heads of another one.
pub fn open<B: Backend>(
    path: &Path,
    net: Option<Net>,
    device: &B::Device,
) -> Result<Lpips<B>, FolderError> {
    let (trunk_file, heads_file) = files(path)?;
    let trunk = Checkpoint::open(&trunk_file)?;
    let found = recognised(&trunk).ok_or_else(|| FolderError::Configuration {
        path: trunk_file.clone(),
        reason:
            "no VGG16, AlexNet or SqueezeNet 1.1 under torchvision's names (`features.0.weight` …)"
                .into(),
    })?;
    for said in [net, configured(path)?].into_iter().flatten() {
        if said != found {
            return Err(FolderError::Configuration {
                path: trunk_file,
                reason: format!("net is said to be {said}, but the tensors are those of {found}"),
            });
        }
    }
    let mut network = found.init::<B>(device);
    load_into(&mut network.trunk, &trunk, &maps::lpips::trunk())?;
    let heads = Checkpoint::open(&heads_file)?;
    let key_map = maps::lpips::heads(found.channels().len());
    load_into(&mut network.heads, &heads, &key_map)?;
    Ok(network)
}

/// Opens SqueezeNet 1.1 with its classifier, from a file or a folder.
///
/// # Errors
/// A missing file, or tensors of another network.
pub fn open_squeezenet<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<SqueezeNet<B>, FolderError> {
    let checkpoint = match path.is_dir() {
        true => Checkpoint::open(&files_trunk(path, None)?)?,
        false => Checkpoint::open(path)?,
    };
    let classes = checkpoint
        .info("classifier.1.bias")
        .and_then(|info| info.shape.first().copied())
        .ok_or_else(|| FolderError::Configuration {
            path: checkpoint.path().to_path_buf(),
            reason: "no classifier.1.bias: these are features without a classifier".into(),
        })?;
    let mut network = SqueezeNet::new(classes, device);
    load_into(&mut network, &checkpoint, &model_import::KeyMap::identity())?;
    Ok(network)
}

/// Which classifier the tensors belong to.
fn recognised(checkpoint: &Checkpoint) -> Option<Net> {
    let kernel = checkpoint
        .info("features.0.weight")
        .map(|info| info.shape.clone())
        .filter(|shape| shape.len() == 4)?;
    match kernel[2] {
        11 => Some(Net::Alex),
        3 if checkpoint.contains("features.3.squeeze.weight") => Some(Net::Squeeze),
        3 if checkpoint.contains("features.28.weight") => Some(Net::Vgg),
        _ => None,
    }
}

/// What `config.json` says, where there is one.
fn configured(path: &Path) -> Result<Option<Net>, FolderError> {
    let file = path.join("config.json");
    let Some(config) = read_json(&file)? else {
        return Ok(None);
    };
    let Some(net) = config.get("net") else {
        return Ok(None);
    };
    serde_json::from_value(net.clone())
        .map(Some)
        .map_err(|error| FolderError::Configuration {
            path: file,
            reason: format!("net: {error}"),
        })
}

/// The trunk's file and the heads'.
fn files(path: &Path) -> Result<(PathBuf, PathBuf), FolderError> {
    if !path.exists() {
        return Err(FolderError::NotFound(path.to_path_buf()));
    }
    if !path.is_dir() {
        return Err(FolderError::NotAFolder(path.to_path_buf()));
    }
    let heads = HEADS
        .into_iter()
        .map(|name| path.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| FolderError::missing(path, "lin.safetensors"))?;
    Ok((files_trunk(path, Some(&heads))?, heads))
}

/// The trunk's file: a known name, or the only other file that can hold weights.
fn files_trunk(path: &Path, heads: Option<&Path>) -> Result<PathBuf, FolderError> {
    let known = TRUNKS.into_iter().map(|name| path.join(name));
    if let Some(file) = known.into_iter().find(|file| file.is_file()) {
        return Ok(file);
    }
    let entries = std::fs::read_dir(path).map_err(|source| FolderError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let mut others: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            let ending = file.extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| ENDINGS.contains(&ending)) && Some(file.as_path()) != heads
        })
        .collect();
    match (others.pop(), others.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(FolderError::missing(path, "model.safetensors")),
    }
}
