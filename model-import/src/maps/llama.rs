//! Llama (`transformers`) and its adapters (`peft`).

use crate::key_map::KeyMap;

/// Names as they are. Files of the first releases also hold rotary frequencies, which follow from the configuration.
/// Where the output layer is the embedding table (`tied`), a copy of it in the file is left out.
pub fn llama(tied: bool) -> KeyMap {
    let map = KeyMap::new().ignore("*.rotary_emb.inv_freq");
    if tied {
        map.ignore("lm_head.weight")
    } else {
        map
    }
}

/// PEFT's names of an adapter that is a module of its own, `layers.N.self_attn.q_proj.lora_A.weight`.
pub fn lora() -> KeyMap {
    KeyMap::new().rename("base_model.model.model", "")
}
