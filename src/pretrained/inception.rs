//! FID's InceptionV3 from a file or a folder.

use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use model_import::{Checkpoint, load_into, maps};
use sha2::{Digest, Sha256};

use super::folder::FolderError;
use crate::networks::inception::InceptionV3;

/// What a folder's file is called, in the order looked for.
const FILES: [&str; 4] = [
    "inception.safetensors",
    "model.safetensors",
    "pt_inception-2015-12-05-6726825d.pth",
    "pytorch_model.bin",
];

/// Opens the weights of `pytorch-fid` (its published `.pth`, or the same as safetensors), with a digest of the file.
///
/// # Errors
/// A missing file, or tensors of another network.
pub fn open<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<(Box<InceptionV3<B>>, String), FolderError> {
    if !path.exists() {
        return Err(FolderError::NotFound(path.to_path_buf()));
    }
    let file: PathBuf = match path.is_dir() {
        true => FILES
            .iter()
            .map(|name| path.join(name))
            .find(|file| file.is_file())
            .ok_or_else(|| FolderError::missing(path, FILES[0]))?,
        false => path.to_path_buf(),
    };
    // Boxed: by value it would stand in every frame that it passes, too much for a thread of 2 MiB.
    let mut network = Box::new(InceptionV3::new(device));
    let checkpoint = Checkpoint::open(&file)?;
    load_into(network.as_mut(), &checkpoint, &maps::inception::features())?;
    let bytes = std::fs::read(&file).map_err(|source| FolderError::Read { path: file, source })?;
    let digest = format!("{:x}", Sha256::digest(&bytes));
    Ok((network, digest))
}
