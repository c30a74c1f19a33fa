//! `ragar pretrain captioner`.

use anyhow::Context as _;
use model_import::SaveDtype;

use super::{Ground, Trained};
use crate::app::backend::Backend;
use crate::pretrained::{self, hub};
use crate::pretraining::captioner::{self, CaptionerData, CaptionerReport};

/// Trains the captioner, its vision tower starting from CLIP's.
pub fn train(ground: &Ground<'_>) -> anyhow::Result<Trained<CaptionerReport>> {
    let config = &ground.config.pretrain.captioner;
    let clip = &ground.config.models.clip;
    let (tower_config, tower) =
        pretrained::clip::open_vision_model::<Backend>(&hub::located(clip), &ground.devices.frozen).with_context(
            || {
                format!(
                    "the captioner starts from the vision tower in models.clip ({}); `ragar pretrain clip` makes one",
                    clip.display()
                )
            },
        )?;
    let data = CaptionerData {
        stickers: &ground.stickers.stickers,
        images: &ground.images,
        tower: Some((&tower_config, &tower)),
        extra: ground.extra(),
    };
    let trained = captioner::run::<Backend>(
        config,
        data,
        &ground.out,
        &ground.devices.train,
        &ground.devices.frozen,
        &ground.watcher,
        &ground.interrupt,
    )?;
    ground.check_finished(trained.report.interrupted, trained.report.steps)?;
    pretrained::blip2::save(
        &ground.model(),
        &trained.config,
        &trained.network,
        &trained.tokenizer,
        &trained.preprocessing,
        SaveDtype::F16,
    )?;
    let card = captioner::model_card(config, &trained, &ground.command, &ground.hardware());
    Ok(Trained {
        card,
        report: trained.report,
    })
}
