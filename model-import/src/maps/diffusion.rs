//! Stable Diffusion 1.x (`diffusers`).

use crate::key_map::KeyMap;

/// The UNet's names as they are.
pub fn unet() -> KeyMap {
    KeyMap::identity()
}

/// The autoencoder's names as they are now.
pub fn vae() -> KeyMap {
    KeyMap::identity()
}

/// The autoencoder's names in the first releases, whose attention was another class.
pub fn vae_first_release() -> KeyMap {
    KeyMap::new()
        .rename_inside("query", "to_q")
        .rename_inside("key", "to_k")
        .rename_inside("value", "to_v")
        .rename_inside("proj_attn", "to_out.0")
}
