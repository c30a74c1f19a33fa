//! Stable Diffusion 1.x (`diffusers`).

use crate::checkpoint::Checkpoint;
use crate::key_map::KeyMap;

/// The UNet's names as they are.
pub fn unet() -> KeyMap {
    KeyMap::identity()
}

/// The autoencoder's names as they are now, or those of the first releases, whose attention was another class.
pub fn vae(checkpoint: &Checkpoint) -> KeyMap {
    let first_release = checkpoint
        .names()
        .any(|name| name.contains(".attentions.") && name.ends_with(".query.weight"));
    if first_release {
        vae_first_release()
    } else {
        vae_now()
    }
}

/// The autoencoder's names as they are now; under these it is saved.
pub fn vae_now() -> KeyMap {
    KeyMap::identity()
}

/// The autoencoder's names in the first releases.
pub fn vae_first_release() -> KeyMap {
    KeyMap::new()
        .rename_inside("query", "to_q")
        .rename_inside("key", "to_k")
        .rename_inside("value", "to_v")
        .rename_inside("proj_attn", "to_out.0")
}
