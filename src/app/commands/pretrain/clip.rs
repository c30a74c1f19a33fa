//! `ragar pretrain clip`.

use anyhow::Context as _;
use image::RgbImage;
use model_import::SaveDtype;

use super::{Ground, Trained};
use crate::app::backend::Backend;
use crate::app::failure::Interrupted;
use crate::data::pixels;
use crate::pretrained::{self, hub};
use crate::pretraining::clip::{self, ClipPretrainingError, ClipQuality, Start, TrainingPictures};

/// Pictures that go through the autoencoder at once.
const BATCH: usize = 32;

/// Trains both towers and the vocabulary, or from given weights the vision tower alone.
pub fn train(ground: &Ground<'_>) -> anyhow::Result<Trained<ClipQuality>> {
    let config = &ground.config.pretrain.clip;
    let given = match &ground.initial {
        Some(folder) => Some(
            pretrained::clip::open::<Backend>(folder, &ground.devices.frozen)
                .with_context(|| format!("--init {}", folder.display()))?,
        ),
        None => None,
    };
    let decoded = match config.decoded_share > 0.0 {
        true => Some(through_autoencoder(ground)?),
        false => None,
    };
    let pictures = TrainingPictures {
        stickers: &ground.stickers.stickers,
        images: &ground.images,
        extra: ground.extra(),
        decoded: decoded
            .as_ref()
            .map(|[own, more]| [own.as_slice(), more.as_slice()]),
    };
    let trained = clip::run::<Backend>(
        config,
        pictures,
        given.as_ref().map(|clip| Start {
            network: &clip.network,
            config: &clip.config,
            tokenizer: &clip.tokenizer,
        }),
        &ground.out,
        &ground.devices.train,
        &ground.watcher,
        &ground.interrupt,
    )
    .map_err(|error| match error {
        ClipPretrainingError::Interrupted { step } => Interrupted::after(step).into(),
        other => anyhow::Error::from(other),
    })?;
    pretrained::clip::save(
        &ground.model(),
        &trained.config,
        &trained.network,
        &trained.tokenizer,
        &trained.preprocessing,
        SaveDtype::F16,
    )?;
    let card = clip::model_card(
        config,
        &trained,
        &ground.stickers.stickers,
        &ground.command,
        &ground.hardware(),
    );
    Ok(Trained {
        report: trained.quality,
        card,
    })
}

/// The stickers' pictures and those of further glyphs as `[models] vae` gives them back.
fn through_autoencoder(ground: &Ground<'_>) -> anyhow::Result<[Vec<RgbImage>; 2]> {
    let models = &ground.config.models;
    let frozen = &ground.devices.frozen;
    let (_, vae) = pretrained::diffusion::open_vae::<Backend>(&hub::located(&models.vae), frozen)
        .with_context(|| {
        format!(
            "pretrain.clip.decoded_share wants models.vae ({}): `ragar pretrain vae` makes one",
            models.vae.display()
        )
    })?;
    let back = |pictures: &[RgbImage]| -> Vec<RgbImage> {
        let batches = pictures.chunks(BATCH);
        batches
            .flat_map(|pictures| {
                let pictures: Vec<&RgbImage> = pictures.iter().collect();
                let batch = pixels::to_batch::<Backend>(&pictures, frozen);
                pixels::to_pictures(vae.decode(vae.encode(batch).mean))
            })
            .collect()
    };
    let more = ground.extra.as_ref();
    let more = more.map_or_else(Vec::new, |(_, images)| back(images));
    Ok([back(&ground.images), more])
}
