//! CLIP, whole and by towers.

use burn::tensor::{DType, Tensor};
use model_import::Checkpoint;

use crate::app::backend::Backend;
use crate::app::golden::case::{Case, Outputs};
use crate::pretrained::clip;

/// Both towers and the joint space; embeddings are normalised.
pub fn whole(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let (config, network) = clip::open_network::<Backend>(case.folder()?, &case.device)?;
    let network = case.ready(network);
    let output = network.forward(
        case.tokens("input_ids", config.text_config.vocab_size)?,
        case.mask()?,
        case.floats("pixel_values")?,
    );
    let mut outputs = Outputs::default();
    outputs.put("text_last_hidden_state", output.text.last_hidden_state);
    outputs.put("text_pooler_output", output.text.pooler_output);
    outputs.put("vision_last_hidden_state", output.vision.last_hidden_state);
    outputs.put("vision_pooler_output", output.vision.pooler_output);
    outputs.put("text_embeds", output.text_embeds);
    outputs.put("image_embeds", output.image_embeds);
    let per_text = output.logits_per_text;
    outputs.put("logits_per_image", per_text.clone().transpose());
    outputs.put("logits_per_text", per_text);
    Ok(outputs)
}

/// The text tower; its embedding is not normalised.
pub fn text(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let (config, tower) = clip::open_text_model::<Backend>(case.folder()?, &case.device)?;
    let ids = case.tokens("input_ids", config.vocab_size)?;
    let output = case.ready(tower).forward_masked(ids, case.mask()?);
    let mut outputs = Outputs::default();
    if case.golden.asks_for("text_embeds") {
        let pooled = output.pooler_output.clone();
        outputs.put("text_embeds", projected(case, pooled, "text_projection")?);
    }
    outputs.put("last_hidden_state", output.last_hidden_state);
    outputs.put("pooler_output", output.pooler_output);
    Ok(outputs)
}

/// The vision tower; its embedding is not normalised.
pub fn vision(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let (_, tower) = clip::open_vision_model::<Backend>(case.folder()?, &case.device)?;
    let output = case.ready(tower).forward(case.floats("pixel_values")?);
    let mut outputs = Outputs::default();
    if case.golden.asks_for("image_embeds") {
        let pooled = output.pooler_output.clone();
        outputs.put(
            "image_embeds",
            projected(case, pooled, "visual_projection")?,
        );
    }
    outputs.put("last_hidden_state", output.last_hidden_state);
    outputs.put("pooler_output", output.pooler_output);
    Ok(outputs)
}

/// Pooled states in the joint space, by the projection that the checkpoint holds beside its tower.
fn projected(
    case: &Case<'_>,
    pooled: Tensor<Backend, 2>,
    projection: &str,
) -> anyhow::Result<Tensor<Backend, 2>> {
    let weight = Checkpoint::open(case.folder()?)?.tensor(&format!("{projection}.weight"))?;
    let weight = Tensor::<Backend, 2>::from_data(weight.convert_dtype(DType::F32), &case.device);
    Ok(pooled.matmul(weight.cast(case.dtype).transpose()))
}
