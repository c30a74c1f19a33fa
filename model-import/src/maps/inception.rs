//! InceptionV3 in the layout of `pytorch-fid` and torchvision.

use crate::key_map::KeyMap;

/// The features; classifiers and counters of batches have no part in them.
pub fn features() -> KeyMap {
    KeyMap::new()
        .ignore("fc.*")
        .ignore("AuxLogits.*")
        .ignore("*.num_batches_tracked")
}
