//! `ragar pretrain clip`.

use model_import::SaveDtype;

use super::{Ground, Trained};
use crate::app::backend::Backend;
use crate::app::failure::Interrupted;
use crate::pretrained;
use crate::pretraining::clip::{self, ClipPretrainingError, ClipQuality};

/// Trains both towers and the vocabulary.
pub fn train(ground: &Ground<'_>) -> anyhow::Result<Trained<ClipQuality>> {
    let config = &ground.config.pretrain.clip;
    let trained = clip::run::<Backend>(
        config,
        &ground.stickers.stickers,
        &ground.images,
        ground.extra(),
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
