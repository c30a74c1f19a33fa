//! BLIP-2 (`transformers`): the module's fields carry the hub's names.

use crate::key_map::KeyMap;

/// Names as they are. Older files also hold position numbers, which are no parameters.
pub fn blip2() -> KeyMap {
    KeyMap::new().ignore("*position_ids")
}
