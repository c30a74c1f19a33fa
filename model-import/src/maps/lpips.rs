//! LPIPS: trunks under `torchvision`'s names, heads under those of the published files.

use crate::key_map::KeyMap;

/// The trunk's features; the classifier behind them has no part in the distance.
pub fn trunk() -> KeyMap {
    KeyMap::new().ignore("classifier.*")
}

/// `lin0.model.1.weight` …, one head per layer. Files of a whole network hold each head a second time under `lins.`,
/// and its trunk and scaling, which are not the heads' business.
pub fn heads(num_layers: usize) -> KeyMap {
    let map = KeyMap::new()
        .ignore("lins.*")
        .ignore("net.*")
        .ignore("scaling_layer.*");
    (0..num_layers).fold(map, |map, layer| {
        map.rename(&format!("lin{layer}.model.1"), &format!("lins.{layer}"))
    })
}
