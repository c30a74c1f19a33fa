//! The modal mapper, under GILL's names.

use model_import::{Checkpoint, KeyMap, load_into};

use crate::app::backend::Backend;
use crate::app::golden::case::{Case, Outputs};
use crate::generation::mapper::{MapperConfig, MapperEnds, ModalMapper};
use crate::pretrained::folder::HubFolder;

/// States of `[IMG]` tokens into the generator's conditioning, with and without the tokens' embeddings.
pub fn compute(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let folder = HubFolder::open(case.folder()?)?;
    let count = |key: &str| -> anyhow::Result<usize> {
        let value = folder.config().get(key).and_then(serde_json::Value::as_u64);
        let value = value.and_then(|value| usize::try_from(value).ok());
        value.ok_or_else(|| {
            let path = folder.path().join("config.json");
            anyhow::anyhow!("{}: `{key}` must be a whole number", path.display())
        })
    };
    let config = MapperConfig {
        d_model: count("d_model")?,
        nhead: count("nhead")?,
        num_encoder_layers: count("num_encoder_layers")?,
        num_decoder_layers: count("num_decoder_layers")?,
        dim_feedforward: count("dim_feedforward")?,
    };
    let ends: MapperEnds = folder.parse()?;
    let mut network: ModalMapper<Backend> = config.init(ends, 0, &case.device)?;
    load_into(
        &mut network,
        &Checkpoint::open(folder.path())?,
        &KeyMap::identity(),
    )?;
    let network = case.ready(network);
    let states = case.floats::<3>("x")?;
    let mut outputs = Outputs::default();
    outputs.put(
        "mapped",
        network.forward(states.clone(), states.zeros_like()),
    );
    if case.golden.gives("input_embs") {
        let mapped = network.forward(states, case.floats("input_embs")?);
        outputs.put("mapped_with_input_embs", mapped);
    }
    Ok(outputs)
}
