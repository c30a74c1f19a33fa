//! `ragar pretrain llm`.

use model_import::SaveDtype;

use super::{Ground, Trained};
use crate::app::backend::Backend;
use crate::pretrained;
use crate::pretraining::language::{self, LanguageReport};

/// Trains the language model that answers the method's prompts.
pub fn train(ground: &Ground<'_>) -> anyhow::Result<Trained<LanguageReport>> {
    let config = &ground.config.pretrain.llm;
    let trained = language::run::<Backend>(
        config,
        &ground.config.prompts,
        &ground.stickers.stickers,
        &ground.out,
        &ground.devices.train,
        &ground.devices.frozen,
        &ground.watcher,
        &ground.interrupt,
    )?;
    ground.check_finished(trained.report.interrupted, trained.report.steps)?;
    pretrained::llama::save(
        &ground.model(),
        &trained.config,
        &trained.network,
        &trained.tokenizer,
        SaveDtype::F16,
    )?;
    let card = language::model_card(config, &trained.report, &ground.command, &ground.hardware());
    Ok(Trained {
        card,
        report: trained.report,
    })
}
