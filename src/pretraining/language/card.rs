//! The model card of a trained language model.

use super::{LanguagePretrainingConfig, LanguageReport, LanguageScore};

/// `README.md` of the folder: data, command, seed, steps, hardware, measured quality.
pub fn model_card(
    config: &LanguagePretrainingConfig,
    report: &LanguageReport,
    command: &str,
    hardware: &str,
) -> String {
    let row = |name: &str, score: &LanguageScore| {
        format!(
            "| {name} ({} pairs) | {:.1} % | {:.1} % | {:.1} % | {:.1} % |",
            score.num_pairs,
            100.0 * score.keywords,
            100.0 * score.theme,
            100.0 * score.summary,
            100.0 * score.preference
        )
    };
    format!(
        "\
# Tiny sticker language model

A Llama of {parameters} parameters ({layers} layers, width {width}, {heads} query and {key_value_heads} key/value heads, \
byte-level byte-pair vocabulary of {vocabulary} tokens, tied embeddings), in the layout of `transformers` \
(`LlamaForCausalLM`). It answers the prompts of this project about stickers and nothing else.

- **Data:** the words of the sticker set's training pairs (`assets/stickers/stickers.csv`, `held_out = false`): captions, \
keyword prompts with answers, summary prompts with answers, preference prompts. No held-out pair is named in any exercise. \
Part of the keyword prompts carry a caption with the wrong glyph, as a captioner may give it.
- **Command:** `{command}`
- **Seed** {seed}, **{steps} steps** of {batch} exercises; the weights are a running average, stored as f16.
- **Hardware:** {hardware}

Exact answers, greedy decoding:

| | keywords | style and group | summary | item in the liked style |
|---|---|---|---|---|
{held_out}
{training}

Keywords: `3d food, hamburger, burger` from the caption and the item's text. Summary: `likes 3d food and flat animals` \
from random keyword lists. Item in the liked style: the caption that follows a preference prompt.
",
        parameters = report.parameters,
        layers = config.num_layers,
        width = config.width,
        heads = config.num_heads,
        key_value_heads = config.num_key_value_heads,
        vocabulary = report.vocabulary,
        seed = config.seed,
        steps = report.steps,
        batch = config.batch_size,
        held_out = row("Held-out pairs", &report.held_out),
        training = row("Training pairs", &report.training),
    )
}
