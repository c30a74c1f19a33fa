//! BLIP-2 (`transformers`): the module's fields carry the hub's names.

use crate::checkpoint::Checkpoint;
use crate::key_map::KeyMap;

const SHARED: &str = "language_model.shared";
const ENCODER: &str = "language_model.encoder.embed_tokens";
const DECODER: &str = "language_model.decoder.embed_tokens";

/// Names as they are. Older files also hold position numbers, which are no parameters.
pub fn blip2() -> KeyMap {
    KeyMap::new().ignore("*position_ids")
}

/// With T5, whose files may repeat the word embeddings under encoder and decoder, or hold them under one of these
/// names alone, and may hold a table of positions for the first attention to the encoder, which never uses it.
pub fn blip2_t5(checkpoint: &Checkpoint) -> KeyMap {
    let words = t5_words(checkpoint);
    let map = blip2().ignore(
        "language_model.decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
    );
    [SHARED, ENCODER, DECODER]
        .into_iter()
        .fold(map, |map, name| {
            let tensor = format!("{name}.weight");
            match tensor == words {
                true => map.rename(name, SHARED),
                false => map.ignore(&tensor),
            }
        })
}

/// Where a file with T5 holds the word embeddings.
pub fn t5_words(checkpoint: &Checkpoint) -> &'static str {
    const NAMES: [&str; 3] = [
        "language_model.shared.weight",
        "language_model.encoder.embed_tokens.weight",
        "language_model.decoder.embed_tokens.weight",
    ];
    let held = NAMES.into_iter().find(|name| checkpoint.contains(name));
    held.unwrap_or(NAMES[0])
}
