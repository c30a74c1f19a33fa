//! What a CLIP can tell of stickers, and the model card that says so.

use std::collections::BTreeMap;
use std::fmt;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use image::RgbImage;
use serde::Serialize;

use super::{ClipPretrainingConfig, TrainedClip, token_ids};
use crate::data::stickers::{Sticker, Style, caption};
use crate::networks::clip::{Clip, ClipPreprocessing, normalise};
use crate::text::TextTokenizer;

/// Rows embedded at once.
const BATCH: usize = 64;

/// Quality on pairs that no training saw, beside that on pairs it saw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClipQuality {
    /// Held-out pairs: the number that counts.
    pub held_out: PairQuality,
    /// Training pairs: how much is memory.
    pub training: PairQuality,
    /// What guessing gives.
    pub chance: PairQuality,
}

/// Shares of pictures for which the right answer is found.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct PairQuality {
    /// Pictures asked about.
    pub num_pictures: usize,
    /// The nearest of the five styles' mean captions is the picture's own.
    pub style: f64,
    /// The nearest of the same glyph's captions in five styles is the picture's own.
    pub style_of_known_glyph: f64,
    /// The nearest of all glyphs' mean captions is the picture's glyph.
    pub glyph_by_text_1: f64,
    /// It is among the five nearest.
    pub glyph_by_text_5: f64,
    /// The nearest of all captions (every glyph in every style) is the picture's own.
    pub caption_1: f64,
    /// The nearest training picture, the picture itself left out, shows its glyph.
    pub glyph_by_image_1: f64,
    /// The glyph is among the five nearest glyphs of training pictures.
    pub glyph_by_image_5: f64,
    /// The mean of its own theme's pictures is nearer than those of other themes (style and group).
    pub theme: f64,
}

impl fmt::Display for ClipQuality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |q: &PairQuality| {
            format!(
                "style {:.3}, glyph by text @1 {:.3} @5 {:.3}, caption {:.3}, glyph by picture @1 {:.3} @5 {:.3}, theme {:.3}",
                q.style,
                q.glyph_by_text_1,
                q.glyph_by_text_5,
                q.caption_1,
                q.glyph_by_image_1,
                q.glyph_by_image_5,
                q.theme
            )
        };
        write!(
            f,
            "held out: {}; training: {}",
            line(&self.held_out),
            line(&self.training)
        )
    }
}

/// Measures on all stickers. Pictures are compared with training pictures only.
pub fn measure<B: Backend>(
    network: &Clip<B>,
    tokenizer: &TextTokenizer,
    preprocessing: &ClipPreprocessing,
    stickers: &[Sticker],
    images: &[RgbImage],
) -> ClipQuality {
    let space = Space::new(network, tokenizer, preprocessing, stickers, images);
    let pick = |held_out: bool| -> Vec<usize> {
        (0..stickers.len())
            .filter(|place| stickers[*place].held_out == held_out)
            .collect()
    };
    let glyphs = space.glyphs.len().max(1) as f64;
    let styles = Style::ALL.len() as f64;
    ClipQuality {
        held_out: space.quality(&pick(true)),
        training: space.quality(&pick(false)),
        chance: PairQuality {
            num_pictures: 0,
            style: 1.0 / styles,
            style_of_known_glyph: 1.0 / styles,
            glyph_by_text_1: 1.0 / glyphs,
            glyph_by_text_5: 5.0 / glyphs,
            caption_1: 1.0 / (glyphs * styles),
            glyph_by_image_1: 1.0 / glyphs,
            glyph_by_image_5: 5.0 / glyphs,
            theme: 1.0 / space.themes.len().max(1) as f64,
        },
    }
}

/// Everything embedded, at length one.
struct Space<'a> {
    stickers: &'a [Sticker],
    pictures: Vec<Vec<f32>>,
    /// Glyph of each sticker, as a position in `glyphs`.
    glyph_of: Vec<usize>,
    glyphs: Vec<&'a str>,
    /// Caption of each glyph in each style.
    captions: Vec<[Vec<f32>; 5]>,
    glyph_means: Vec<Vec<f32>>,
    style_means: Vec<Vec<f32>>,
    themes: BTreeMap<(Style, &'a str), Vec<f32>>,
}

impl<'a> Space<'a> {
    fn new<B: Backend>(
        network: &Clip<B>,
        tokenizer: &TextTokenizer,
        preprocessing: &ClipPreprocessing,
        stickers: &'a [Sticker],
        images: &[RgbImage],
    ) -> Self {
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, sticker) in stickers.iter().enumerate() {
            first.entry(&sticker.glyph).or_insert(place);
        }
        let glyphs: Vec<&str> = first.keys().copied().collect();
        let glyph_of = stickers
            .iter()
            .map(|s| glyphs.partition_point(|g| *g < s.glyph.as_str()))
            .collect();
        let mut texts = Vec::new();
        for place in first.values() {
            for style in Style::ALL {
                texts.push(caption(&Sticker {
                    style,
                    ..stickers[*place].clone()
                }));
            }
        }
        let texts = embed_texts(network, tokenizer, &texts);
        let captions: Vec<[Vec<f32>; 5]> = texts
            .chunks_exact(5)
            .map(|rows| std::array::from_fn(|style| rows[style].clone()))
            .collect();
        let glyph_means = captions.iter().map(|rows| mean(rows.iter())).collect();
        let style_means = (0..5)
            .map(|style| mean(captions.iter().map(|rows| &rows[style])))
            .collect();
        let pictures = embed_pictures(network, preprocessing, images);
        let mut members: BTreeMap<(Style, &str), Vec<&Vec<f32>>> = BTreeMap::new();
        for (sticker, picture) in stickers.iter().zip(&pictures) {
            if !sticker.held_out {
                let theme = (sticker.style, sticker.group.as_str());
                members.entry(theme).or_default().push(picture);
            }
        }
        let themes = members
            .into_iter()
            .map(|(theme, rows)| (theme, mean(rows.into_iter())))
            .collect();
        Self {
            stickers,
            glyph_of,
            glyphs,
            captions,
            glyph_means,
            style_means,
            themes,
            pictures,
        }
    }

    fn quality(&self, places: &[usize]) -> PairQuality {
        let share = |holds: &dyn Fn(usize) -> bool| {
            let count = places.iter().filter(|place| holds(**place)).count();
            count as f64 / places.len().max(1) as f64
        };
        let style = |place: usize| self.stickers[place].style as usize;
        let glyph_rank = |place: usize| {
            let scores = self
                .glyph_means
                .iter()
                .map(|g| dot(&self.pictures[place], g));
            rank(scores, self.glyph_of[place])
        };
        PairQuality {
            num_pictures: places.len(),
            style: share(&|place| {
                let scores = self
                    .style_means
                    .iter()
                    .map(|s| dot(&self.pictures[place], s));
                rank(scores, style(place)) == 0
            }),
            style_of_known_glyph: share(&|place| {
                let captions = self.captions[self.glyph_of[place]].iter();
                let scores = captions.map(|c| dot(&self.pictures[place], c));
                rank(scores, style(place)) == 0
            }),
            glyph_by_text_1: share(&|place| glyph_rank(place) == 0),
            glyph_by_text_5: share(&|place| glyph_rank(place) < 5),
            caption_1: share(&|place| {
                let captions = self.captions.iter().flatten();
                let scores = captions.map(|c| dot(&self.pictures[place], c));
                rank(scores, 5 * self.glyph_of[place] + style(place)) == 0
            }),
            glyph_by_image_1: share(&|place| self.glyph_rank_by_image(place) == 0),
            glyph_by_image_5: share(&|place| self.glyph_rank_by_image(place) < 5),
            theme: share(&|place| {
                let sticker = &self.stickers[place];
                let own = (sticker.style, sticker.group.as_str());
                let scores = self.themes.values().map(|t| dot(&self.pictures[place], t));
                let position = self.themes.keys().position(|theme| *theme == own);
                position.is_some_and(|position| rank(scores, position) == 0)
            }),
        }
    }

    /// How many other glyphs have a training picture nearer than the nearest other one of this glyph.
    fn glyph_rank_by_image(&self, place: usize) -> usize {
        let mut best = vec![f32::NEG_INFINITY; self.glyphs.len()];
        for (other, picture) in self.pictures.iter().enumerate() {
            if other != place && !self.stickers[other].held_out {
                let glyph = self.glyph_of[other];
                best[glyph] = best[glyph].max(dot(&self.pictures[place], picture));
            }
        }
        rank(best.into_iter(), self.glyph_of[place])
    }
}

/// How many scores are larger than the one at `place`.
fn rank(scores: impl Iterator<Item = f32>, place: usize) -> usize {
    let scores: Vec<f32> = scores.collect();
    scores
        .iter()
        .filter(|score| **score > scores[place])
        .count()
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(l, r)| l * r).sum()
}

/// The mean of some rows, at length one.
fn mean<'r>(rows: impl Iterator<Item = &'r Vec<f32>>) -> Vec<f32> {
    let mut sum: Vec<f32> = Vec::new();
    for row in rows {
        sum.resize(row.len(), 0.0);
        sum.iter_mut().zip(row).for_each(|(s, r)| *s += r);
    }
    let length = dot(&sum, &sum).sqrt().max(1e-12);
    sum.into_iter().map(|value| value / length).collect()
}

fn embed_texts<B: Backend>(
    network: &Clip<B>,
    tokenizer: &TextTokenizer,
    texts: &[String],
) -> Vec<Vec<f32>> {
    let device = network.logit_scale.val().device();
    let context = network
        .text_model
        .embeddings
        .position_embedding
        .weight
        .dims()[0];
    texts
        .chunks(BATCH)
        .flat_map(|chunk| {
            let ids = token_ids::<B>(tokenizer, chunk, context, &device);
            rows(normalise(network.text_embeds(ids)))
        })
        .collect()
}

fn embed_pictures<B: Backend>(
    network: &Clip<B>,
    preprocessing: &ClipPreprocessing,
    images: &[RgbImage],
) -> Vec<Vec<f32>> {
    let device = network.logit_scale.val().device();
    images
        .chunks(BATCH)
        .flat_map(|chunk| {
            let chunk: Vec<&RgbImage> = chunk.iter().collect();
            let pixels = preprocessing.to_pixels::<B>(&chunk, &device);
            rows(normalise(network.image_embeds(pixels)))
        })
        .collect()
}

fn rows<B: Backend>(tensor: Tensor<B, 2>) -> Vec<Vec<f32>> {
    let [_, width] = tensor.dims();
    let values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
    values.chunks_exact(width).map(<[f32]>::to_vec).collect()
}

/// The model card of a trained tiny CLIP. `hardware` and `command` are the caller's words.
pub fn model_card<B: Backend>(
    config: &ClipPretrainingConfig,
    trained: &TrainedClip<B>,
    stickers: &[Sticker],
    command: &str,
    hardware: &str,
) -> String {
    let network = &trained.config;
    let training = stickers.iter().filter(|s| !s.held_out).count();
    let ClipQuality {
        held_out,
        training: seen,
        chance,
    } = &trained.quality;
    let row = |name: &str, value: fn(&PairQuality) -> f64| {
        format!(
            "| {name} | {:.1} % | {:.1} % | {:.1} % |\n",
            100.0 * value(held_out),
            100.0 * value(seen),
            100.0 * value(chance)
        )
    };
    let extra = match trained.num_extra_glyphs {
        0 => String::new(),
        count => format!(
            "Pictures of {count} further glyphs from the same packages (`ragar data stickers` with all glyphs; none of \
             them is in the shipped set) trained the vision tower's sense of style and shape."
        ),
    };
    let text_part = match trained.started {
        false => {
            "First the text tower alone: linear heads name glyph, group and style from its place in the joint space"
        }
        true => {
            "It started from an earlier training's weights, whose text tower rests throughout. First linear heads that \
             name glyph, group and style from the text tower's place in the joint space"
        }
    };
    let decoded = match config.decoded_share {
        0.0 => String::new(),
        share => format!(
            "; {:.0} % of the pictures as the generator's autoencoder gives them back",
            100.0 * share
        ),
    };
    let mut table = String::new();
    table.push_str(&row("style, by the styles' mean captions", |q| q.style));
    table.push_str(&row("style, among five captions of the right glyph", |q| {
        q.style_of_known_glyph
    }));
    table.push_str(&row("glyph@1, by the glyphs' mean captions", |q| {
        q.glyph_by_text_1
    }));
    table.push_str(&row("glyph@5, by the glyphs' mean captions", |q| {
        q.glyph_by_text_5
    }));
    table.push_str(&row("glyph and style, among all captions", |q| q.caption_1));
    table.push_str(&row("glyph@1, by the nearest other picture", |q| {
        q.glyph_by_image_1
    }));
    table.push_str(&row("glyph@5, by the nearest other pictures", |q| {
        q.glyph_by_image_5
    }));
    table.push_str(&row(
        "theme (style and group), by the themes' mean pictures",
        |q| q.theme,
    ));
    format!(
        "# Tiny CLIP for stickers\n\n\
         A member of CLIP's family, in the layout of transformers' `CLIPModel`: both towers {width} wide with {layers} layers \
         and {heads} heads, patches of {patch} on {side}×{side} pixels, {context} tokens of a byte-pair vocabulary of {vocab}, \
         joint space {joint}. {parameters} parameters, stored as f16. Pictures go in as [−1, 1].\n\n\
         ## Data\n\n\
         The {training} training pairs (glyph in a style) of `assets/stickers`; the {num_held_out} held-out pairs were never seen, \
         neither by the network nor by the vocabulary. Texts are captions such as \"a glossy 3d sticker of a hamburger, food\" and their \
         variants: without style, keyword lists, lists of liked themes before a label. Licences and attribution of the pictures: \
         `assets/stickers/LICENSES.md`. {extra}\n\n\
         ## Training\n\n\
         {text_part} ({text_steps} steps of {text_batch} descriptions). Then the vision tower against the resting text tower: symmetric InfoNCE, all pictures \
         that a text describes as its positives in equal parts; {attribute_weight} times the heads' cross-entropies; {image_weight} times a contrastive \
         term between pictures of one glyph in different styles ({steps} steps of up to {batch} pairs, {kept} of the patches in the first \
         {masked:.0} % of them{decoded}). AdamW, cosine schedule from {rate}, weight average {average}, seed {seed}.\n\n\
         Command: `{command}`\n\n\
         Hardware: {hardware}\n\n\
         ## Measured quality\n\n\
         Share of pictures for which the right answer comes first (or among five). {glyphs} glyphs, 5 styles, {num_held_out} held-out pictures. \
         Pictures are compared with training pictures only, never with themselves.\n\n\
         | question | held-out pairs | training pairs | chance |\n|---|---|---|---|\n{table}\n\
         As a judge of generated pictures its ceiling is the first column: that is what it says of real pictures it has not seen.\n\n\
         ## Limits\n\n\
         It knows the shipped glyphs and styles and nothing else. Glyphs that look alike in small pictures are confused.\n",
        width = network.text_config.hidden_size,
        layers = network.text_config.num_hidden_layers,
        heads = network.text_config.num_attention_heads,
        patch = network.vision_config.patch_size,
        side = network.vision_config.image_size,
        context = network.text_config.max_position_embeddings,
        vocab = network.text_config.vocab_size,
        joint = network.projection_dim,
        parameters = burn::module::Module::num_params(&trained.network),
        num_held_out = stickers.len() - training,
        image_weight = config.image_weight,
        rate = config.schedule.learning_rate,
        average = config.average_decay,
        steps = config.num_steps,
        text_steps = config.text_steps,
        text_batch = config.text_batch,
        attribute_weight = config.attribute_weight,
        kept = config.kept_patches,
        masked = 100.0 * (1.0 - config.whole_share),
        batch = config.num_glyphs * config.num_styles,
        seed = config.seed,
        glyphs = (1.0 / chance.glyph_by_text_1).round(),
    )
}
