//! `ragar pretrain glyph-recogniser` and `style-recogniser`.

use model_import::SaveDtype;

use super::card::Card;
use super::{Ground, Trained};
use crate::app::backend::Backend;
use crate::networks::recogniser::Aspect;
use crate::pretrained;
use crate::pretraining::recogniser::{self, RecogniserData, RecogniserReport};

/// Trains the judge of `aspect`.
pub fn train(ground: &Ground<'_>, aspect: Aspect) -> anyhow::Result<Trained<RecogniserReport>> {
    let (config, key) = match aspect {
        Aspect::Glyph => (
            &ground.config.pretrain.glyph_recogniser,
            "pretrain.glyph_recogniser.decoded_share",
        ),
        Aspect::Style => (
            &ground.config.pretrain.style_recogniser,
            "pretrain.style_recogniser.decoded_share",
        ),
    };
    let decoded = match config.decoded_share > 0.0 {
        true => Some(ground.through_autoencoder(key)?),
        false => None,
    };
    let data = RecogniserData {
        aspect,
        stickers: &ground.stickers.stickers,
        images: &ground.images,
        extra: ground.extra(),
        decoded: decoded
            .as_ref()
            .map(|[own, more]| [own.as_slice(), more.as_slice()]),
    };
    let trained = recogniser::run::<Backend>(
        config,
        &data,
        &ground.out,
        &ground.devices.train,
        &ground.devices.frozen,
        &ground.watcher,
        &ground.interrupt,
    )?;
    ground.check_finished(trained.report.interrupted, trained.report.steps)?;
    let half = SaveDtype::F16;
    pretrained::recogniser::save(&ground.model(), &trained.config, &trained.network, half)?;
    let word = aspect.word();
    let further = match &data.extra {
        Some(extra) => format!(
            " {} pictures of further glyphs, none of which is in the set, were learned from too.",
            extra.usable(data.stickers).len()
        ),
        None => String::new(),
    };
    let card = Card {
        title: &format!("Recogniser of {word}s for stickers"),
        what: format!(
            "A residual network with group norms, widths {:?}, that names which of {} {word}s a picture shows. The judge of drawings whose \
             right answer is known; no part of the method. Stored in f16.",
            config.shape.widths,
            trained.config.names.len()
        ),
        training: format!(
            "Cross-entropy with smoothed labels; pictures changed at random (`pretrain.{word}_recogniser.augmentation`), {:.0} % of them as the \
             generator's autoencoder gives them back.{further} {} steps of {} pictures, seed {}.",
            100.0 * config.decoded_share,
            trained.report.steps,
            config.batch_size,
            config.seed
        ),
    };
    Ok(Trained {
        card: card.write(ground, &trained.report),
        report: trained.report,
    })
}
