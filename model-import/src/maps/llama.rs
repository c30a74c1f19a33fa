//! Llama (`transformers`) and its adapters (`peft`).

use crate::key_map::KeyMap;

/// Names as they are. Files of the first releases also hold rotary frequencies, which follow from the configuration.
pub fn llama() -> KeyMap {
    KeyMap::new().ignore("*.rotary_emb.inv_freq")
}
