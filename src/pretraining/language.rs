//! Language-model training: a small Llama that answers the method's prompts about stickers.
//!
//! It learns captions, keyword prompts with their answers, summary prompts with their answers, and preference
//! prompts, all made from the training pairs' own words ([`corpus`]). The loss counts answers, captions and
//! preference prompts; the words of a keyword or summary prompt are given, never learned. Nothing of this is in the
//! paper, which takes a published language model.

use std::path::Path;

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::PretrainingError;
use super::trainer::{Evaluation, Trainer, TrainerConfig};
use crate::data::stickers::Sticker;
use crate::networks::llama::{LlamaConfig, LlamaForCausalLm};
use crate::optimisation::{AdamWConfig, Decay, Interrupt, Progress, Schedule};
use crate::text::prompt::PromptConfig;
use crate::text::{BytePairKind, TextTokenizer};

pub mod card;
pub mod corpus;
pub mod score;

pub use card::model_card;
pub use corpus::{Corpus, Exercise, Mixture};
pub use score::LanguageScore;

/// A run of language-model training. None of these values comes from the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LanguagePretrainingConfig {
    /// Steps, rates, intervals.
    pub trainer: TrainerConfig,
    /// How often each kind of exercise is drawn.
    pub mixture: Mixture,
    /// Exercises a step.
    pub batch_size: usize,
    /// Largest vocabulary.
    pub vocab_size: usize,
    /// Width of the network.
    pub width: usize,
    /// Width inside the feed-forward.
    pub feed_forward_width: usize,
    /// Decoder layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Longest text in tokens.
    pub max_tokens: usize,
    /// Exercises of each kind that an evaluation asks at most.
    pub num_evaluated: usize,
    /// Seed of weights and exercises.
    pub seed: u64,
}

impl Default for LanguagePretrainingConfig {
    fn default() -> Self {
        Self {
            trainer: TrainerConfig {
                steps: 1500,
                schedule: Schedule {
                    learning_rate: 3e-3,
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
            mixture: Mixture::default(),
            batch_size: 32,
            vocab_size: 1500,
            width: 128,
            feed_forward_width: 384,
            num_layers: 4,
            num_heads: 4,
            num_key_value_heads: 2,
            max_tokens: 512,
            num_evaluated: 200,
            seed: 1,
        }
    }
}

impl LanguagePretrainingConfig {
    /// # Errors
    /// When a setting is out of range.
    pub fn validate(&self) -> Result<(), PretrainingError> {
        self.trainer.validate()?;
        self.mixture.validate()?;
        let counts = [
            ("batch_size", self.batch_size),
            ("num_evaluated", self.num_evaluated),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((key, _)) => Err(PretrainingError::Setting {
                key,
                found: "0".into(),
                expected: "at least 1",
            }),
            None => Ok(()),
        }
    }

    /// The network for a vocabulary: embeddings serve as the output layer.
    pub fn network(&self, tokenizer: &TextTokenizer) -> LlamaConfig {
        LlamaConfig {
            model_type: "llama".into(),
            vocab_size: tokenizer.vocab_size(),
            hidden_size: self.width,
            intermediate_size: self.feed_forward_width,
            num_hidden_layers: self.num_layers,
            num_attention_heads: self.num_heads,
            num_key_value_heads: Some(self.num_key_value_heads),
            head_dim: None,
            hidden_act: "silu".into(),
            max_position_embeddings: self.max_tokens,
            rms_norm_eps: 1e-5,
            initializer_range: 0.05,
            tie_word_embeddings: true,
            attention_bias: false,
            mlp_bias: false,
            rope_theta: Some(10_000.0),
            rope_scaling: None,
            rope_parameters: None,
            bos_token_id: tokenizer.bos_id(),
            eos_token_id: tokenizer.eos_id().into_iter().collect(),
            pad_token_id: Some(tokenizer.pad_id()),
        }
    }
}

/// What a training run is worth.
#[derive(Debug, Clone, Serialize)]
pub struct LanguageReport {
    /// Steps taken.
    pub steps: usize,
    /// Parameters of the network.
    pub parameters: usize,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// On held-out pairs' captions, greedy decoding.
    pub held_out: LanguageScore,
    /// On training pairs' captions, greedy decoding.
    pub training: LanguageScore,
    /// Was the run stopped before its last step?
    pub interrupted: bool,
}

/// A trained language model (averaged weights) with all a hub folder needs.
#[derive(Debug)]
pub struct TrainedLanguageModel<B: Backend> {
    /// The network.
    pub network: LlamaForCausalLm<B>,
    /// Its configuration.
    pub config: LlamaConfig,
    /// Its vocabulary.
    pub tokenizer: TextTokenizer,
    /// What it is worth.
    pub report: LanguageReport,
}

/// Trains on the words of the pairs in `stickers` that are not held out; checkpoints and `metrics.jsonl` go to `folder`.
/// A run that finds checkpoints there goes on from the newest.
///
/// # Errors
/// When the configuration or the data do not fit, the loss is not finite, or the disk refuses.
#[allow(clippy::too_many_arguments)]
pub fn run<B: AutodiffBackend>(
    config: &LanguagePretrainingConfig,
    prompts: &PromptConfig,
    stickers: &[Sticker],
    folder: &Path,
    device: &Device<B>,
    frozen: &Device<B>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<TrainedLanguageModel<B::InnerBackend>, PretrainingError> {
    config.validate()?;
    prompts.validate()?;
    let corpus = Corpus::new(stickers, prompts, &config.mixture)?;
    let tokenizer = TextTokenizer::train_byte_pair(
        corpus.vocabulary_texts().iter().map(String::as_str),
        config.vocab_size,
        &BytePairKind::llama(&[]),
    )?;
    let network_config = config.network(&tokenizer);
    let network = network_config
        .init::<B>(device)?
        .initialise(network_config.initializer_range, config.seed);
    let identity = json!({
        "network": network_config,
        "prompts": prompts,
        "mixture": config.mixture,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "pairs": corpus.training().len(),
    });
    let trainer = Trainer::<B, _>::open(
        &config.trainer,
        &identity,
        network,
        folder,
        frozen,
        progress,
    )?;
    let asked = config.num_evaluated;
    let lesson = |network: &LlamaForCausalLm<B>, step: usize| {
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        random.set_stream(step as u64 + 1);
        let rows: Vec<TokenRow> = (0..config.batch_size)
            .map(|_| TokenRow::new(&corpus.draw(&mut random), &tokenizer))
            .collect();
        Ok((loss(network, &rows, &tokenizer, device), Vec::new()))
    };
    let evaluate = |averaged: &LlamaForCausalLm<B::InnerBackend>, _: usize| {
        let score = score::held_out(averaged, &tokenizer, &corpus, asked);
        Ok(Evaluation {
            metrics: json!({ "held_out": score }),
            words: format!("held-out pairs: {score}"),
        })
    };
    let outcome = trainer.run("language model", interrupt, lesson, evaluate)?;
    let network = outcome.network;
    let report = LanguageReport {
        steps: outcome.steps,
        parameters: network.num_params(),
        vocabulary: tokenizer.vocab_size(),
        held_out: score::held_out(&network, &tokenizer, &corpus, asked),
        training: score::training(&network, &tokenizer, &corpus, asked),
        interrupted: outcome.interrupted,
    };
    Ok(TrainedLanguageModel {
        network,
        config: network_config,
        tokenizer,
        report,
    })
}

/// Tokens of one exercise; those before `learned_from` are given.
struct TokenRow {
    ids: Vec<u32>,
    learned_from: usize,
}

impl TokenRow {
    fn new(exercise: &Exercise, tokenizer: &TextTokenizer) -> Self {
        // The start token stands before a prompt and before a text that is learned whole.
        let mut ids = tokenizer.encode(&exercise.prompt);
        let learned_from = ids.len();
        ids.extend(tokenizer.encode_plain(&exercise.answer));
        if exercise.ends {
            ids.extend(tokenizer.eos_id());
        }
        Self { ids, learned_from }
    }
}

/// Mean cross-entropy, `[1]`, of the learned tokens of `rows`.
fn loss<B: Backend>(
    network: &LlamaForCausalLm<B>,
    rows: &[TokenRow],
    tokenizer: &TextTokenizer,
    device: &Device<B>,
) -> Tensor<B, 1> {
    // The last token predicts nothing; padding stands on the right, where no earlier token looks.
    let length = rows.iter().map(|row| row.ids.len()).max().unwrap_or(1) - 1;
    let padding = i64::from(tokenizer.pad_id());
    let (mut inputs, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let token = |place: usize| row.ids.get(place).map_or(padding, |id| i64::from(*id));
        for place in 0..length {
            inputs.push(token(place));
            targets.push(token(place + 1));
            let learned = (row.learned_from..row.ids.len()).contains(&(place + 1));
            weights.push(f32::from(u8::from(learned)));
        }
    }
    let shape = [rows.len(), length];
    let num_learned: f32 = weights.iter().sum();
    let ids = |values| Tensor::<B, 2, Int>::from_data(TensorData::new(values, shape), device);
    let hidden = network.forward_hidden(network.embed(ids(inputs)), None);
    let said = log_softmax(network.logits(hidden), 2)
        .gather(2, ids(targets).unsqueeze_dim(2))
        .squeeze_dim::<2>(2);
    let weights = Tensor::<B, 2>::from_data(TensorData::new(weights, shape), device);
    (said * weights).sum() / -num_learned.max(1.0)
}
