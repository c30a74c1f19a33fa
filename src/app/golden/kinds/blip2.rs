//! BLIP-2.

use crate::app::backend::Backend;
use crate::app::golden::case::{Case, Outputs, zeroed};
use crate::networks::blip2::{CaptionOptions, LanguageModel, TokenBatch};
use crate::pretrained::blip2;

/// Every stage from the picture to its caption.
pub fn compute(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let (_, network) = blip2::open_network::<Backend>(case.folder()?, &case.device)?;
    let network = case.ready(network);
    let pixels = case.floats::<4>("pixel_values")?;
    let golden = case.golden;
    let mut outputs = Outputs::default();
    let image = network.image_features(pixels.clone())?;
    outputs.put("vision_last_hidden_state", image.vision_last_hidden_state);
    outputs.put("qformer_output", image.qformer_output);
    outputs.put("language_projection", image.language_projection);

    let ids = golden.rows("input_ids")?;
    let prompts = match golden.gives("attention_mask") {
        false => TokenBatch::unpadded(ids),
        true => {
            let mask = golden.rows("attention_mask")?;
            let kept = |row: Vec<u32>| row.into_iter().map(|kept| kept != 0).collect();
            TokenBatch {
                ids,
                mask: mask.into_iter().map(kept).collect(),
            }
        }
    };
    match &network.language_model {
        LanguageModel::Opt(_) => {
            let logits = network.forward(pixels.clone(), &prompts)?;
            outputs.put("logits", zeroed(logits, case.mask()?.as_ref()));
        }
        LanguageModel::T5(_) => {
            let answers = golden.rows("decoder_input_ids")?;
            let answer = network.answer(pixels.clone(), &prompts, &answers)?;
            let states = answer.encoder_last_hidden_state;
            let states = zeroed(states, case.mask()?.as_ref());
            outputs.put("encoder_last_hidden_state", states);
            outputs.put("logits", answer.logits);
        }
    }
    let options = || -> anyhow::Result<CaptionOptions> {
        Ok(CaptionOptions {
            max_new_tokens: golden.required("max_new_tokens")?,
            ..CaptionOptions::default()
        })
    };
    if golden.asks_for("generated_ids") {
        let texts = network.generate(pixels.clone(), &prompts, &options()?)?;
        outputs.put_rows("generated_ids", &texts);
    }
    if golden.asks_for("caption_ids") {
        let bare = network.prompts(pixels.dims()[0], None)?;
        let texts = network.generate(pixels, &bare, &options()?)?;
        outputs.put_rows("caption_ids", &texts);
    }
    Ok(outputs)
}
