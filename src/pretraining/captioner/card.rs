//! The model card of a trained captioner.

use super::{CaptionScore, CaptionerPretrainingConfig, TrainedCaptioner};
use burn::tensor::backend::Backend;

/// `README.md` of the folder: data, command, seed, steps, hardware, measured quality.
pub fn model_card<B: Backend>(
    config: &CaptionerPretrainingConfig,
    trained: &TrainedCaptioner<B>,
    command: &str,
    hardware: &str,
) -> String {
    let (network, report) = (&trained.config, &trained.report);
    let row = |name: &str, score: &CaptionScore| {
        let percent = |fraction: f64| format!("{:.1} %", 100.0 * fraction);
        format!(
            "| {name} ({} pairs) | {} | {} | {} | {} |",
            score.count,
            percent(score.style),
            percent(score.label),
            percent(score.group),
            percent(score.exact)
        )
    };
    let start = match report.started_from_clip {
        true => "The vision tower started from the tiny CLIP's, whose card says what it has seen.",
        false => "Every part started from random weights.",
    };
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let extra = match report.num_extra_pictures {
        0 => String::new(),
        count => format!(
            "; {} of the pictures and pieces show one of {count} pictures of further glyphs from the same packages, none of them in the \
shipped set",
            percent(config.extra_share)
        ),
    };
    format!(
        "\
# Tiny sticker captioner

A BLIP-2 of {parameters} parameters in the layout of `transformers` (`Blip2ForConditionalGeneration`): a vision tower \
({vision_layers} layers, width {vision_width}, {side}×{side} pixels in patches of {patch}), a Q-Former \
({qformer_layers} layers, {queries} queries) and an OPT decoder ({text_layers} layers, width {text_width}, byte-level \
byte-pair vocabulary of {vocabulary} tokens). It says what a sticker shows and in which style: \
`a glossy 3d sticker of a hamburger, food`. Of other pictures it knows nothing.

- **Data:** the training pairs of the sticker set (`assets/stickers/stickers.csv`, `held_out = false`). Labels are learned from \
pictures that are moved, turned, scaled, tinted, mirrored and partly hidden at random, each after the words of a random style; styles, in {styles} of a step's \
pictures, from whole pictures ({whole}) and from four pieces of different ones, mirrored and moved by whole pixels{extra}. {start}
- **Beside the words:** linear heads, not kept, name glyph and style from the tower's patches and from the queries ({head_weight} times their \
cross-entropies, answers smoothed by {smoothing}).
- **Command:** `{command}`
- **Seed** {seed}, **{steps} steps** of {batch} pictures; the weights are a running average, stored as f16.
- **Hardware:** {hardware}

Captions that name the right thing, greedy decoding:

| | style | label | group | word for word |
|---|---|---|---|---|
{held_out}
{training}
",
        parameters = report.parameters,
        vision_layers = network.vision_config.num_hidden_layers,
        vision_width = network.vision_config.hidden_size,
        side = network.vision_config.image_size,
        patch = network.vision_config.patch_size,
        qformer_layers = network.qformer_config.num_hidden_layers,
        queries = network.num_query_tokens,
        text_layers = network.text_config.num_layers(),
        text_width = network.text_config.hidden_size(),
        vocabulary = network.text_config.vocab_size(),
        seed = config.seed,
        steps = report.steps,
        batch = config.batch_size,
        styles = percent(config.style_share),
        whole = percent(config.whole_share),
        head_weight = config.head_weight,
        smoothing = config.label_smoothing,
        held_out = row("Held-out pairs", &report.held_out),
        training = row("Training pairs", &report.training),
    )
}
