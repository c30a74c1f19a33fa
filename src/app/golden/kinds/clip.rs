//! CLIP, whole and by towers.

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
    let (config, network) = clip::open_text::<Backend>(case.folder()?, &case.device)?;
    let ids = case.tokens("input_ids", config.vocab_size)?;
    let (states, embeds) = case.ready(network).forward(ids, case.mask()?);
    let mut outputs = Outputs::default();
    outputs.put("last_hidden_state", states.last_hidden_state);
    outputs.put("pooler_output", states.pooler_output);
    if let Some(embeds) = embeds {
        outputs.put("text_embeds", embeds);
    }
    Ok(outputs)
}

/// The vision tower; its embedding is not normalised.
pub fn vision(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let (_, network) = clip::open_vision::<Backend>(case.folder()?, &case.device)?;
    let (states, embeds) = case.ready(network).forward(case.floats("pixel_values")?);
    let mut outputs = Outputs::default();
    outputs.put("last_hidden_state", states.last_hidden_state);
    outputs.put("pooler_output", states.pooler_output);
    if let Some(embeds) = embeds {
        outputs.put("image_embeds", embeds);
    }
    Ok(outputs)
}
