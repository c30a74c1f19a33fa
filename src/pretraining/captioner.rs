//! Training of the captioner: a small BLIP-2 that says a sticker's style, label and group.
//!
//! Published BLIP-2 trains in two stages with frozen parts on either side of the Q-Former. With two million parameters
//! and a thousand stickers one stage does: everything is trained on the canonical caption, by the cross-entropy of its
//! words. The vision tower may start from a trained CLIP's.
//!
//! A held-out pair's glyph is seen in every style but this one, so whole captions teach that the two exclude each other. Glyph and style
//! are therefore learned apart (`lessons`): a label after the words of a random style, a style from pieces of pictures as well, by which
//! no glyph is known. Linear heads, used in training alone, ask the vision tower and the queries for both (`heads`).

use std::path::Path;

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Int, Tensor, TensorData};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::augmentation::Augmentation;
use super::error::PretrainingError;
use super::extra::ExtraPictures;
use super::initial::seeded;
use super::trainer::{Evaluation, Trainer, TrainerConfig, num_parameters};
use crate::data::stickers::{Sticker, caption};
use crate::networks::blip2::{
    Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig, Blip2VisionConfig,
    CaptionOptions, OptConfig, TextConfig, TokenBatch, TokenIds,
};
use crate::networks::clip::{ClipPreprocessing, ClipVisionConfig, ClipVisionModel};
use crate::nn::activation::Activation;
use crate::optimisation::{AdamWConfig, Decay, Interrupt, Progress, Schedule};
use crate::text::{BytePairKind, SpecialTokens, TextTokenizer};

pub mod card;
mod heads;
pub mod initial_weights;
mod lessons;
pub mod score;

use heads::Student;
use lessons::{Curriculum, Lesson};

pub use card::model_card;
pub use score::{CaptionScore, Judge};

/// Stands for one image position in a prompt.
pub const IMAGE_TOKEN: &str = "<image>";

/// A run of captioner training. None of these values comes from the paper, which takes a published BLIP-2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptionerPretrainingConfig {
    /// Steps, rates, intervals.
    pub trainer: TrainerConfig,
    /// What is done to the pictures from which labels are learned.
    pub augmentation: Augmentation,
    /// Images a step.
    pub batch_size: usize,
    /// Part of them from which styles are learned; labels are learned from the others.
    pub style_share: f64,
    /// How often a picture of style is whole; the others are put together of four pieces of different pictures.
    pub whole_share: f64,
    /// How often a picture of style, or a piece of one, shows a further glyph, if there are any.
    pub extra_share: f64,
    /// Weight of the heads' cross-entropies beside the words'.
    pub head_weight: f64,
    /// Part of each head's answer that is spread over all answers.
    pub label_smoothing: f64,
    /// Width of all three parts.
    pub width: usize,
    /// Layers of the vision tower; those of the CLIP it starts from, if any.
    pub num_vision_layers: usize,
    /// Layers of the Q-Former, each with cross-attention.
    pub num_qformer_layers: usize,
    /// Learned queries.
    pub num_queries: usize,
    /// Layers of the decoder.
    pub num_text_layers: usize,
    /// Largest vocabulary.
    pub vocab_size: usize,
    /// Seed of weights, order and augmentation.
    pub seed: u64,
}

impl Default for CaptionerPretrainingConfig {
    fn default() -> Self {
        Self {
            trainer: TrainerConfig {
                steps: 2400,
                schedule: Schedule {
                    learning_rate: 1e-3,
                    warmup_steps: 100,
                    decay: Decay::Cosine,
                    final_fraction: 0.02,
                },
                optimizer: AdamWConfig {
                    beta_2: 0.98,
                    weight_decay: 0.05,
                    ..AdamWConfig::default()
                },
                average_decay: 0.99,
                ..TrainerConfig::default()
            },
            augmentation: Augmentation::STRONG,
            batch_size: 64,
            style_share: 0.5,
            whole_share: 0.5,
            extra_share: 0.5,
            head_weight: 0.5,
            label_smoothing: 0.1,
            width: 128,
            num_vision_layers: 4,
            num_qformer_layers: 2,
            num_queries: 8,
            num_text_layers: 3,
            vocab_size: 1024,
            seed: 1,
        }
    }
}

impl CaptionerPretrainingConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// When a number makes no run; the message names the key.
    pub fn validate(&self) -> Result<(), PretrainingError> {
        self.augmentation.validate()?;
        if self.batch_size < 2 {
            return Err(PretrainingError::Setting {
                key: "batch_size",
                found: self.batch_size.to_string(),
                expected: "at least 2, a picture for labels and one for styles",
            });
        }
        for (key, share) in [
            ("style_share", self.style_share),
            ("whole_share", self.whole_share),
            ("extra_share", self.extra_share),
            ("label_smoothing", self.label_smoothing),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(PretrainingError::Setting {
                    key,
                    found: share.to_string(),
                    expected: "between 0 and 1",
                });
            }
        }
        if self.shares().contains(&0) {
            return Err(PretrainingError::Setting {
                key: "style_share",
                found: self.style_share.to_string(),
                expected: "a part of batch_size that leaves a picture for styles and one for labels",
            });
        }
        Ok(())
    }

    /// Pictures of a step from which labels, and from which styles are learned.
    fn shares(&self) -> [usize; 2] {
        let styles = (self.style_share * self.batch_size as f64).round() as usize;
        [self.batch_size.saturating_sub(styles), styles]
    }
}

/// What a run learns from and is measured on. Pairs that are held out are measured on and never learned from.
#[derive(Debug, Clone, Copy)]
pub struct CaptionerData<'a, B: Backend> {
    /// What each picture shows.
    pub stickers: &'a [Sticker],
    /// Square pictures of one size, as many as stickers.
    pub images: &'a [RgbImage],
    /// A trained CLIP's vision tower to start from.
    pub tower: Option<(&'a ClipVisionConfig, &'a ClipVisionModel<B>)>,
    /// Further glyphs to learn from.
    pub extra: Option<ExtraPictures<'a>>,
}

/// What a training run is worth.
#[derive(Debug, Clone, Serialize)]
pub struct CaptionerReport {
    /// Steps taken.
    pub steps: usize,
    /// Parameters of the network.
    pub parameters: usize,
    /// Did the vision tower start from a CLIP?
    pub started_from_clip: bool,
    /// Pictures of further glyphs that were learned from.
    pub num_extra_pictures: usize,
    /// On held-out pairs, greedy decoding.
    pub held_out: CaptionScore,
    /// On training pairs, greedy decoding.
    pub training: CaptionScore,
    /// Was the run stopped before its last step?
    pub interrupted: bool,
}

/// A trained captioner (averaged weights) with all a hub folder needs.
#[derive(Debug)]
pub struct TrainedCaptioner<B: Backend> {
    pub network: Blip2ForConditionalGeneration<B>,
    pub config: Blip2Config,
    pub tokenizer: TextTokenizer,
    /// What it does to pictures first.
    pub preprocessing: ClipPreprocessing,
    pub report: CaptionerReport,
}

/// Trains on the pairs that are not held out; checkpoints and `metrics.jsonl` go to `folder`. A run that finds checkpoints there goes on
/// from the newest. Pictures are seen in [−1, 1].
///
/// # Errors
/// When the configuration or the data do not fit, the loss is not finite, or the disk refuses.
pub fn run<B: AutodiffBackend>(
    config: &CaptionerPretrainingConfig,
    data: CaptionerData<'_, B::InnerBackend>,
    folder: &Path,
    device: &Device<B>,
    frozen: &Device<B>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<TrainedCaptioner<B::InnerBackend>, PretrainingError> {
    config.validate()?;
    let side = check(config, &data)?;
    let (held_out, training): (Vec<usize>, Vec<usize>) =
        (0..data.stickers.len()).partition(|&index| data.stickers[index].held_out);
    let tokenizer = tokenizer(
        training.iter().map(|&index| &data.stickers[index]),
        config.vocab_size,
    )?;
    let curriculum = Curriculum::new(
        data.stickers,
        data.images,
        &training,
        data.extra,
        &tokenizer,
    );
    let styles = lessons::styles(data.stickers, &training);
    let longest = data
        .stickers
        .iter()
        .flat_map(|sticker| styles.iter().map(move |style| (sticker, *style)))
        .map(|(sticker, style)| lessons::tokens(&tokenizer, sticker, style).len())
        .max()
        .unwrap_or(0);
    let preprocessing = ClipPreprocessing::symmetric(side);
    let vision = data.tower.map(|(vision, _)| vision);
    let network_config = network_config(config, &tokenizer, vision, side as usize, longest)?;
    let network = seeded(network_config.init::<B>(device)?, config.seed, |_| false);
    let mut network = initial_weights::seeded_embeddings(network, config.seed);
    if let Some((_, tower)) = data.tower {
        let shown: Vec<&RgbImage> = training
            .iter()
            .take(64)
            .map(|&index| &data.images[index])
            .collect();
        let pixels = preprocessing.to_pixels::<B::InnerBackend>(&shown, frozen);
        initial_weights::start_from_clip(&mut network.vision_model, tower, pixels, device);
    }
    let widths = [
        network_config.vision_config.hidden_size,
        network_config.text_config.hidden_size(),
    ];
    let answers = curriculum.num_answers();
    let network = Student::new(network, widths, answers, config.seed, device);
    let identity = json!({
        "network": network_config,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "images": [training.len(), curriculum.num_extra()],
    });
    let trainer = Trainer::<B, _>::open(
        &config.trainer,
        &identity,
        network,
        folder,
        frozen,
        progress,
    )?;
    let options = CaptionOptions {
        max_new_tokens: longest,
        ..CaptionOptions::default()
    };
    let evaluate = |network: &Blip2ForConditionalGeneration<B::InnerBackend>, indices: &[usize]| {
        let judge = Judge {
            network,
            tokenizer: &tokenizer,
            preprocessing: &preprocessing,
            options: &options,
        };
        judge.score(data.stickers, data.images, indices, frozen)
    };
    let lesson = |student: &Student<B>, step: usize| {
        let lessons = curriculum.draw(config, step);
        let pixels: Vec<f32> = lessons
            .iter()
            .flat_map(|lesson| lesson.pixels.iter().copied())
            .collect();
        let shape = [lessons.len(), 3, side as usize, side as usize];
        let pixels = Tensor::from_data(TensorData::new(pixels, shape), device);
        let network = &student.captioner;
        let patches = network.vision_model.forward(pixels);
        let queries = network.ask(patches.clone()).language_projection;
        let words = word_loss(network, queries.clone(), &lessons)?;
        let heads = student.loss(patches, queries, &lessons, config.label_smoothing);
        let loss = words.clone() + heads.clone().mul_scalar(config.head_weight);
        Ok((loss, vec![("words", words), ("heads", heads)]))
    };
    let report_held_out = |averaged: &Student<B::InnerBackend>, _: usize| {
        let score = evaluate(&averaged.captioner, &held_out)?;
        Ok(Evaluation {
            metrics: json!({ "held_out": score }),
            words: format!("held-out pairs: {score}"),
        })
    };
    let outcome = trainer.run("captioner", interrupt, lesson, report_held_out)?;
    let network = outcome.network.captioner;
    let report = CaptionerReport {
        steps: outcome.steps,
        parameters: num_parameters(&network),
        started_from_clip: data.tower.is_some(),
        num_extra_pictures: curriculum.num_extra(),
        held_out: evaluate(&network, &held_out)?,
        training: evaluate(&network, &training)?,
        interrupted: outcome.interrupted,
    };
    Ok(TrainedCaptioner {
        network,
        config: network_config,
        tokenizer,
        preprocessing,
        report,
    })
}

/// The side of the pictures.
fn check<B: Backend>(
    config: &CaptionerPretrainingConfig,
    data: &CaptionerData<'_, B>,
) -> Result<u32, PretrainingError> {
    if data.images.len() != data.stickers.len() {
        let (images, stickers) = (data.images.len(), data.stickers.len());
        return Err(PretrainingError::Data(format!(
            "{images} images of {stickers} stickers"
        )));
    }
    let side = data.images.first().map_or(0, RgbImage::width);
    let extra = data.extra.map(|extra| (extra.stickers, extra.images));
    for (stickers, images) in [(data.stickers, data.images)].into_iter().chain(extra) {
        let odd = images
            .iter()
            .position(|image| image.dimensions() != (side, side));
        if let Some(odd) = odd {
            let (width, height) = images[odd].dimensions();
            return Err(PretrainingError::Data(format!(
                "image {odd} ({}, {}) is {width} × {height}, the first is {side} wide, and all must be squares of that side",
                stickers[odd].label, stickers[odd].style
            )));
        }
    }
    let num_training = data
        .stickers
        .iter()
        .filter(|sticker| !sticker.held_out)
        .count();
    if num_training == data.stickers.len() {
        return Err(PretrainingError::Data(
            "no pair is held out: nothing to measure on".into(),
        ));
    }
    if num_training < config.batch_size {
        return Err(PretrainingError::Setting {
            key: "batch_size",
            found: config.batch_size.to_string(),
            expected: "at most the number of training images",
        });
    }
    Ok(side)
}

/// A vocabulary of OPT's arrangement learned from the training captions, with a token for image positions.
fn tokenizer<'a>(
    training: impl Iterator<Item = &'a Sticker>,
    vocab_size: usize,
) -> Result<TextTokenizer, PretrainingError> {
    let mut captions: Vec<String> = training.map(caption).collect();
    captions.sort();
    let special = |token: &str| Some(token.to_string());
    let kind = BytePairKind::ByteLevel(SpecialTokens {
        tokens: ["<s>", "<pad>", "</s>", "<unk>", IMAGE_TOKEN]
            .map(String::from)
            .into(),
        bos: special("</s>"),
        eos: special("</s>"),
        pad: special("<pad>"),
        unk: special("<unk>"),
        add_bos: true,
        add_eos: false,
    });
    Ok(TextTokenizer::train_byte_pair(
        captions.iter().map(String::as_str),
        vocab_size,
        &kind,
    )?)
}

/// The network that `config` describes, with `longest` tokens of text at most.
fn network_config(
    config: &CaptionerPretrainingConfig,
    tokenizer: &TextTokenizer,
    tower: Option<&ClipVisionConfig>,
    image_size: usize,
    longest: usize,
) -> Result<Blip2Config, PretrainingError> {
    let heads = (config.width / 32).max(1);
    let vision_config = match tower {
        Some(tower) if tower.image_size != image_size => {
            return Err(PretrainingError::Data(format!(
                "the CLIP to start from sees {} pixels, the images have {image_size}",
                tower.image_size
            )));
        }
        Some(tower) => Blip2VisionConfig {
            hidden_size: tower.hidden_size,
            intermediate_size: tower.intermediate_size,
            num_hidden_layers: tower.num_hidden_layers,
            num_attention_heads: tower.num_attention_heads,
            image_size,
            patch_size: tower.patch_size,
            hidden_act: tower.hidden_act,
            layer_norm_eps: tower.layer_norm_eps,
            qkv_bias: true,
        },
        None => Blip2VisionConfig {
            hidden_size: config.width,
            intermediate_size: 4 * config.width,
            num_hidden_layers: config.num_vision_layers,
            num_attention_heads: heads,
            image_size,
            patch_size: (image_size / 8).max(1),
            ..Blip2VisionConfig::default()
        },
    };
    let id = |token: &str| tokenizer.id(token);
    Ok(Blip2Config {
        vision_config,
        qformer_config: Blip2QFormerConfig {
            hidden_size: config.width,
            num_hidden_layers: config.num_qformer_layers,
            num_attention_heads: heads,
            intermediate_size: 4 * config.width,
            cross_attention_frequency: 1,
            ..Blip2QFormerConfig::default()
        },
        text_config: TextConfig::Opt(OptConfig {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: config.width,
            num_hidden_layers: config.num_text_layers,
            num_attention_heads: heads,
            ffn_dim: 4 * config.width,
            max_position_embeddings: (config.num_queries + 2 * longest)
                .next_power_of_two()
                .max(64),
            word_embed_proj_dim: Some(config.width),
            activation_function: Activation::Relu,
            pad_token_id: id("<pad>"),
            bos_token_id: tokenizer.bos_id(),
            eos_token_id: tokenizer.eos_id().map(TokenIds::One),
            ..OptConfig::default()
        }),
        num_query_tokens: config.num_queries,
        image_token_index: id(IMAGE_TOKEN),
        initializer_range: 0.02,
        model_type: "blip-2".into(),
    })
}

/// Mean cross-entropy, `[1]`, of what is to be learned of each lesson's words, after the projected queries
/// `[batch, queries, width]` and the words before them.
fn word_loss<B: AutodiffBackend>(
    network: &Blip2ForConditionalGeneration<B>,
    queries: Tensor<B, 3>,
    lessons: &[Lesson],
) -> Result<Tensor<B, 1>, PretrainingError> {
    let device = queries.device();
    let longest = lessons.iter().map(|lesson| lesson.row.len()).max();
    let longest = longest.unwrap_or(0);
    let padding = network.text_config().pad_token().unwrap_or(0);
    let num_queries = network.num_query_tokens();
    let mut tokens = TokenBatch {
        ids: Vec::new(),
        mask: Vec::new(),
    };
    let (mut targets, mut weights) = (Vec::new(), Vec::new());
    for Lesson { row, learned, .. } in lessons {
        let filling = longest - row.len();
        let placeholders = vec![network.image_placeholder(); num_queries];
        let ids = [placeholders, row.clone(), vec![padding; filling]].concat();
        let seen = vec![true; num_queries + row.len()];
        tokens.ids.push(ids);
        tokens.mask.push([seen, vec![false; filling]].concat());
        for place in 1..longest {
            targets.push(i64::from(*row.get(place).unwrap_or(&padding)));
            weights.push(f32::from(learned.contains(&place)));
        }
    }
    let logits = network.read(queries, &tokens)?;
    let [count, total, vocabulary] = logits.dims();
    let words = logits.slice([0..count, num_queries..total - 1, 0..vocabulary]);
    let shape = [count, longest - 1];
    let targets = Tensor::<B, 2, Int>::from_data(TensorData::new(targets, shape), &device);
    let num_words: f32 = weights.iter().sum();
    let weights = Tensor::<B, 2>::from_data(TensorData::new(weights, shape), &device);
    let said = log_softmax(words, 2)
        .gather(2, targets.unsqueeze_dim(2))
        .squeeze_dim::<2>(2);
    Ok((said * weights).sum().div_scalar(-num_words))
}
