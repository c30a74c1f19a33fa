//! `ragar pretrain unet`: the denoising network, saved as a whole pipeline.

use anyhow::Context as _;
use model_import::SaveDtype;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::card::Card;
use super::{Ground, Trained};
use crate::app::backend::Backend;
use crate::data::stickers::{Sticker, caption, caption_variant};
use crate::pretrained;
use crate::pretrained::diffusion::PromptEncoder;
use crate::pretraining::diffusion::{self, DiffusionReport, PromptedImages};

/// Other descriptions under which a picture is shown, beside its caption.
const VARIANTS: usize = 12;

/// Trains the denoising network on the latents of `[models] vae` and the text states of `[models] clip`.
pub fn train(ground: &Ground<'_>) -> anyhow::Result<Trained<DiffusionReport>> {
    let config = &ground.config.pretrain.unet;
    let models = &ground.config.models;
    let frozen = &ground.devices.frozen;
    let made_by = |what: &str| format!("`ragar pretrain {what}` makes one");
    let (vae_config, vae) = pretrained::diffusion::open_vae::<Backend>(&models.vae, frozen)
        .with_context(|| format!("models.vae ({}): {}", models.vae.display(), made_by("vae")))?;
    let text =
        PromptEncoder::<Backend>::open(&models.clip, &models.clip, frozen).with_context(|| {
            format!(
                "models.clip ({}): {}",
                models.clip.display(),
                made_by("clip")
            )
        })?;
    let states = |prompts: &[String]| text.states(prompts, frozen);
    let trained = diffusion::run::<Backend>(
        config,
        &prompted(ground, false)?,
        &prompted(ground, true)?,
        &vae,
        &states,
        &ground.out,
        &ground.devices.train,
        frozen,
        &ground.watcher,
        &ground.interrupt,
    )?;
    ground.check_finished(trained.report.interrupted, trained.report.steps)?;
    let model = ground.model();
    let half = SaveDtype::F16;
    pretrained::diffusion::save_unet(&model.join("unet"), &trained.config, &trained.network, half)?;
    pretrained::diffusion::save_vae(&model.join("vae"), &vae_config, &vae, half)?;
    pretrained::clip::save_text_model(
        &model.join("text_encoder"),
        &text.config,
        &text.network,
        &text.tokenizer,
        half,
    )?;
    text.tokenizer.save(&model.join("tokenizer"))?;
    pretrained::diffusion::save_index(&model, &trained.scheduler)?;
    let card = Card {
        title: "Tiny Stable Diffusion for stickers",
        what: format!(
            "A member of Stable Diffusion's family in the layout of diffusers' `StableDiffusionPipeline`: denoising network of widths {:?} on \
             16×16×4 latents, conditioned on the tiny CLIP's text states. Stored in f16.",
            config.network.block_out_channels
        ),
        training: format!(
            "Latents and text states computed once; each picture shown under its caption or one of {VARIANTS} other descriptions, or none. \
             {} steps of {} images, seed {}.",
            trained.report.steps, config.batch_size, config.seed
        ),
    };
    Ok(Trained {
        card: card.write(ground, &trained.report),
        report: trained.report,
    })
}

/// One side of the split with the captions and their variants; held-out pictures have their caption only.
fn prompted(ground: &Ground<'_>, held_out: bool) -> anyhow::Result<PromptedImages> {
    let seed = ground.config.pretrain.unet.seed;
    let prompts = ground
        .side(held_out)
        .map(|(place, sticker)| match held_out {
            true => vec![caption(sticker)],
            false => descriptions(sticker, seed, place),
        })
        .collect();
    Ok(PromptedImages {
        images: ground.image_set(held_out)?,
        prompts,
    })
}

/// The caption first, then distinct variants drawn from a stream of the sticker's own.
fn descriptions(sticker: &Sticker, seed: u64, place: usize) -> Vec<String> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(place as u64 + 1);
    let mut texts = vec![caption(sticker)];
    for _ in 0..4 * VARIANTS {
        let text = caption_variant(sticker, &mut random);
        if !texts.contains(&text) {
            texts.push(text);
        }
        if texts.len() > VARIANTS {
            break;
        }
    }
    texts
}
