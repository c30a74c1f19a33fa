//! `ragar pretrain clip`.

use anyhow::Context as _;
use model_import::SaveDtype;

use super::{Ground, Trained};
use crate::app::backend::Backend;
use crate::app::failure::Interrupted;
use crate::pretrained;
use crate::pretraining::clip::{self, ClipPretrainingError, ClipQuality, Start, TrainingPictures};

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
        true => Some(ground.through_autoencoder("pretrain.clip.decoded_share")?),
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
