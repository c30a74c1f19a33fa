//! `ragar pretrain llm`.

use model_import::SaveDtype;

use super::card::Card;
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
    let card = Card {
        title: "Tiny Llama for stickers",
        what: format!(
            "A member of Llama's family in the layout of transformers' `LlamaForCausalLM`: {} layers, {} wide, {} query heads and {} \
             key/value heads, {} entries of a byte-pair vocabulary of its own. It answers the keyword and summary prompts of `[prompts]`. \
             Stored in f16.",
            config.num_layers,
            config.width,
            config.num_heads,
            config.num_key_value_heads,
            trained.report.vocabulary
        ),
        training: format!(
            "Captions, keyword and summary prompts with their answers, and preference prompts, all made from the training pairs' own \
             words. {} steps of {} texts, seed {}.",
            trained.report.steps, config.batch_size, config.seed
        ),
    };
    Ok(Trained {
        card: card.write(ground, &trained.report),
        report: trained.report,
    })
}
