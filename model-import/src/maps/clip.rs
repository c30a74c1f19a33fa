//! CLIP (`transformers`): the module's fields carry the hub's names.

use crate::checkpoint::Checkpoint;
use crate::key_map::KeyMap;

/// The whole network. Older files also hold position numbers, which are no parameters.
pub fn clip() -> KeyMap {
    KeyMap::new().ignore("*position_ids").scalar("logit_scale")
}

/// The text tower out of a text encoder's file or of a whole CLIP; what else such a file holds is left out.
/// Most files put `text_model.` before every name, some do not.
pub fn text_model(checkpoint: &Checkpoint) -> KeyMap {
    tower(checkpoint, "text_model.").ignore("vision_model.*")
}

/// The vision tower out of a vision encoder's file or of a whole CLIP.
pub fn vision_model(checkpoint: &Checkpoint) -> KeyMap {
    tower(checkpoint, "vision_model.").ignore("text_model.*")
}

/// The text tower and its projection, out of a file of their own or of a whole CLIP.
pub fn text_projected(checkpoint: &Checkpoint) -> KeyMap {
    projected(checkpoint, "text_model", "text_projection")
        .ignore("vision_model.*")
        .ignore("visual_projection.*")
}

/// The vision tower and its projection, out of a file of their own or of a whole CLIP.
pub fn vision_projected(checkpoint: &Checkpoint) -> KeyMap {
    projected(checkpoint, "vision_model", "visual_projection")
        .ignore("text_model.*")
        .ignore("text_projection.*")
}

fn projected(checkpoint: &Checkpoint, tower: &str, projection: &str) -> KeyMap {
    let map = clip().ignore("logit_scale");
    if checkpoint.has_prefix(&format!("{tower}.")) {
        map
    } else {
        map.rename(projection, projection).rename("", tower)
    }
}

fn tower(checkpoint: &Checkpoint, prefix: &str) -> KeyMap {
    let map = clip()
        .ignore("text_projection.*")
        .ignore("visual_projection.*")
        .ignore("logit_scale");
    if checkpoint.has_prefix(prefix) {
        map.rename(prefix, "")
    } else {
        map
    }
}

/// The names under which a text encoder of its own is saved: with the prefix, as Stable Diffusion's folders have it.
pub fn text_encoder() -> KeyMap {
    KeyMap::new().rename("text_model", "")
}
