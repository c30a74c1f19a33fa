//! `ragar pretrain unet`: the denoising network, saved as a whole pipeline.

use anyhow::Context as _;
use model_import::SaveDtype;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::card::Card;
use super::{Ground, Trained, image_set};
use crate::app::backend::Backend;
use crate::data::stickers::{Sticker, caption, caption_variant};
use crate::pretrained::diffusion::PromptEncoder;
use crate::pretrained::{self, hub};
use crate::pretraining::diffusion::{self, DiffusionReport, PromptedImages};

/// Other descriptions under which a picture is shown, beside its caption.
const VARIANTS: usize = 12;
/// The same for a picture of a further glyph: its text states take room too.
const EXTRA_VARIANTS: usize = 3;

/// Trains the denoising network on the latents of `[models] vae` and the text states of `[models] clip`.
pub fn train(ground: &Ground<'_>) -> anyhow::Result<Trained<DiffusionReport>> {
    let config = &ground.config.pretrain.unet;
    let models = &ground.config.models;
    let frozen = &ground.devices.frozen;
    let made_by = |what: &str| format!("`ragar pretrain {what}` makes one");
    let (vae_config, vae) =
        pretrained::diffusion::open_vae::<Backend>(&hub::located(&models.vae), frozen)
            .with_context(|| {
                format!("models.vae ({}): {}", models.vae.display(), made_by("vae"))
            })?;
    let clip = hub::located(&models.clip);
    let text = PromptEncoder::<Backend>::open(&clip, &clip, frozen).with_context(|| {
        format!(
            "models.clip ({}): {}",
            models.clip.display(),
            made_by("clip")
        )
    })?;
    let initial = match &ground.initial {
        Some(folder) => {
            let (network, unet) = pretrained::diffusion::open_unet::<Backend>(folder, frozen)
                .with_context(|| format!("--init {}", folder.display()))?;
            anyhow::ensure!(
                network == config.network,
                "--init {}: its config.json describes another network than [pretrain.unet.network]",
                folder.display()
            );
            Some(unet)
        }
        None => None,
    };
    let states = |prompts: &[String]| text.states(prompts, frozen);
    let trained = diffusion::run::<Backend>(
        config,
        &prompted(ground, false)?,
        &prompted(ground, true)?,
        initial.as_ref(),
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
             {} steps of {} images, seed {}.{}{}{}{}",
            trained.report.steps,
            config.batch_size,
            config.seed,
            match trained.report.num_extra_pictures {
                0 => String::new(),
                count => format!(
                    " {count} pictures of further glyphs made {:.0} % of each step.",
                    100.0 * config.shown_extra()
                ),
            },
            match &config.little_noise {
                little if little.share > 0.0 => format!(
                    " {:.0} % of each step's images stood at time steps below {}.",
                    100.0 * little.share,
                    little.below
                ),
                _ => String::new(),
            },
            match &config.adversarial {
                judged if judged.share > 0.0 => format!(
                    " {:.0} % of each step's images were judged by recognisers that learned beside it, of styles (weight {}) and of glyphs ({}).",
                    100.0 * judged.share,
                    judged.style_weight,
                    judged.glyph_weight
                ),
                _ => String::new(),
            },
            match ground.initial {
                None => "",
                Some(_) => " It started from an earlier training's weights.",
            }
        ),
    };
    Ok(Trained {
        card: card.write(ground, &trained.report),
        report: trained.report,
    })
}

/// One side of the split with the captions and their variants; held-out pictures have their caption only, further
/// glyphs join the training side.
fn prompted(ground: &Ground<'_>, held_out: bool) -> anyhow::Result<PromptedImages> {
    let seed = ground.config.pretrain.unet.seed;
    let mut prompts: Vec<Vec<String>> = ground
        .side(held_out)
        .map(|(place, sticker)| match held_out {
            true => vec![caption(sticker)],
            false => descriptions(sticker, seed, place, VARIANTS),
        })
        .collect();
    let mut pictures = ground.pictures(held_out);
    let mut shown: Vec<&Sticker> = ground.side(held_out).map(|(_, sticker)| sticker).collect();
    let num_own = pictures.len();
    if let (Some(extra), false) = (ground.extra(), held_out) {
        for place in extra.usable(&ground.stickers.stickers) {
            let sticker = &extra.stickers[place];
            prompts.push(descriptions(sticker, seed + 1, place, EXTRA_VARIANTS));
            pictures.push(&extra.images[place]);
            shown.push(sticker);
        }
    }
    Ok(PromptedImages {
        num_extra: pictures.len() - num_own,
        images: image_set(pictures)?,
        prompts,
        styles: shown
            .iter()
            .map(|sticker| sticker.style.name().into())
            .collect(),
        glyphs: shown.iter().map(|sticker| sticker.glyph.clone()).collect(),
    })
}

/// The caption first, then distinct variants drawn from a stream of the sticker's own.
fn descriptions(sticker: &Sticker, seed: u64, place: usize, variants: usize) -> Vec<String> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(place as u64 + 1);
    let mut texts = vec![caption(sticker)];
    for _ in 0..4 * variants {
        let text = caption_variant(sticker, &mut random);
        if !texts.contains(&text) {
            texts.push(text);
        }
        if texts.len() > variants {
            break;
        }
    }
    texts
}
