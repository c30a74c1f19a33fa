//! The learned perceptual distance.

use anyhow::Context as _;

use crate::app::backend::Backend;
use crate::app::golden::case::{Case, Outputs};
use crate::networks::lpips::Net;
use crate::pretrained::lpips;

/// Distances of image pairs, in all and by layer.
pub fn compute(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let said = case
        .golden
        .option("net")
        .map(|word| -> anyhow::Result<Net> {
            serde_json::from_value(word.into()).with_context(|| {
                format!(
                    "{}: metadata `net` is `{word}`",
                    case.golden.path().display()
                )
            })
        });
    let network = lpips::open::<Backend>(case.folder()?, said.transpose()?, &case.device)?;
    let distance = case
        .ready(network)
        .forward(case.floats("in0")?, case.floats("in1")?)?;
    let mut outputs = Outputs::default();
    outputs.put("distance", distance.total);
    outputs.put("layer_distances", distance.layers);
    Ok(outputs)
}
