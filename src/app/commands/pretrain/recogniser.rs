//! `ragar pretrain recogniser`.

use model_import::SaveDtype;

use super::card::Card;
use super::{Ground, Trained};
use crate::app::backend::Backend;
use crate::pretrained;
use crate::pretraining::recogniser::{self, RecogniserData, RecogniserReport};

/// Trains the judge of glyphs.
pub fn train(ground: &Ground<'_>) -> anyhow::Result<Trained<RecogniserReport>> {
    let config = &ground.config.pretrain.recogniser;
    let decoded = match config.decoded_share > 0.0 {
        true => Some(ground.through_autoencoder("pretrain.recogniser.decoded_share")?),
        false => None,
    };
    let data = RecogniserData {
        stickers: &ground.stickers.stickers,
        images: &ground.images,
        decoded: decoded.as_ref().map(|[own, _]| own.as_slice()),
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
    let card = Card {
        title: "Recogniser of glyphs for stickers",
        what: format!(
            "A residual network with group norms, widths {:?}, that names which of {} glyphs a picture shows. The judge of drawings whose \
             right answer is known; no part of the method. Stored in f16.",
            config.shape.widths,
            trained.config.glyphs.len()
        ),
        training: format!(
            "Cross-entropy with smoothed labels; pictures moved, turned, scaled, tinted and partly hidden, {:.0} % of them as the generator's \
             autoencoder gives them back. {} steps of {} pictures, seed {}.",
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
