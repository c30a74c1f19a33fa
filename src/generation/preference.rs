//! The preference model: everything that reflection trains.
//!
//! A preference prompt ends in the `[IMG]` tokens. The language model's states at the prompt's tokens pass
//! through `W_t`, those at the `[IMG]` tokens through the Modal Mapper; together they are `E_mm`, which the
//! Balance Calibrator fuses into the generator's own conditioning.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, DType, Device, ElementConversion, Int, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::networks::llama::{ImageTokens, LlamaForCausalLm};
use crate::nn::lora::{LoraConfig, LoraConfigError};

use super::calibrator::{BalanceCalibrator, CalibratorConfig};
use super::mapper::{MapperConfig, MapperConfigError, MapperEnds, ModalMapper};

/// Settings of the [`PreferenceModel`].
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PreferenceConfig {
    /// `R`, the number of `[IMG]` tokens (GILL: 8; not in the paper).
    pub image_tokens: usize,
    /// Longest preference prompt in tokens, its beginning cut off beyond.
    pub max_prompt_tokens: usize,
    /// The language model's adapter (rank and targets are not in the paper).
    pub lora: LoraConfig,
    /// The Modal Mapper (paper: 4 layers; sizes as GILL).
    pub mapper: MapperConfig,
    /// The fusion.
    pub calibrator: CalibratorConfig,
    /// Whether the fusion's attention also sees `p_ret`, as a token of its own. In the paper retrieval reaches the weights
    /// through `L_cal` alone; with this (ours) it also has a say when an image is drawn.
    pub retrieval_token: bool,
    /// Whether `E_gen` also moves by a trained share, token by token, from the reference's caption towards the retrieved
    /// items' (ours). The shares start at zero. Left out where it is off: checkpoints of older runs belong to
    /// configurations without the key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retrieval_shift: bool,
}

/// How much faster a share of the retrieval's shift learns than a weight: it is one number where a layer has thousands that
/// move together.
const SHARE_RATE: f64 = 100.0;

impl Default for PreferenceConfig {
    fn default() -> Self {
        Self {
            image_tokens: 8,
            max_prompt_tokens: 256,
            lora: LoraConfig::default(),
            mapper: MapperConfig::default(),
            calibrator: CalibratorConfig::default(),
            retrieval_token: false,
            retrieval_shift: false,
        }
    }
}

/// A preference model that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum PreferenceError {
    /// The adapter does not fit the language model.
    #[error(transparent)]
    Lora(#[from] LoraConfigError),
    /// The mapper's sizes do not fit together.
    #[error(transparent)]
    Mapper(#[from] MapperConfigError),
    /// Something else, by key.
    #[error("{0}")]
    Config(String),
}

/// What the generator wants of a conditioning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConditioningShape {
    /// `Q`: tokens of its text encoder.
    pub tokens: usize,
    /// `d`: width of its text encoder.
    pub width: usize,
}

impl PreferenceConfig {
    /// Refuses values without a meaning, with the reason.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), PreferenceError> {
        let config = |text: &str| Err(PreferenceError::Config(text.to_string()));
        if self.image_tokens == 0 {
            return config("image_tokens = 0: the mapper needs at least one token");
        }
        if self.max_prompt_tokens == 0 {
            return config("max_prompt_tokens = 0: nothing of the prompt would be left");
        }
        if self.calibrator.num_heads == 0 {
            return config("calibrator.num_heads = 0: give at least one head");
        }
        self.mapper.validate()?;
        Ok(())
    }

    /// A model to train over the frozen `llama`, whose device it shares. The same seed gives the same model.
    ///
    /// # Errors
    /// When sizes do not fit each other.
    pub fn init<B: Backend>(
        &self,
        llama: LlamaForCausalLm<B>,
        shape: ConditioningShape,
        seed: u64,
        device: &Device<B>,
    ) -> Result<PreferenceModel<B>, PreferenceError> {
        self.validate()?;
        if !shape.width.is_multiple_of(self.calibrator.num_heads) {
            return Err(PreferenceError::Config(format!(
                "calibrator.num_heads = {} does not divide the generator's text width {}",
                self.calibrator.num_heads, shape.width
            )));
        }
        let image_tokens = ImageTokens::new(&llama, self.image_tokens, seed);
        let ends = MapperEnds {
            in_dim: llama.width(),
            out_dim: shape.width,
            num_queries: shape.tokens,
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x0ca1_b4a7);
        let mut further = ChaCha8Rng::seed_from_u64(seed ^ 0x9e7e_7a11);
        Ok(PreferenceModel {
            retrieval_projection: self
                .retrieval_token
                .then(|| uniform_linear(shape.width, shape.width, &mut further, device)),
            retrieval_shares: self
                .retrieval_shift
                .then(|| Initializer::Zeros.init([shape.tokens], device)),
            log_sigma: None,
            image_tokens,
            modal_mapper: self.mapper.init(ends, seed, device)?,
            text_projection: uniform_linear(llama.width(), shape.width, &mut random, device),
            calibrator: self.calibrator.init(shape.width, &mut random, device),
            llama: llama.no_grad().add_lora(&self.lora, seed)?,
        })
    }
}

/// A linear layer drawn as PyTorch draws it, from `random`: the same on every backend.
pub(super) fn uniform_linear<B: Backend>(
    inputs: usize,
    outputs: usize,
    random: &mut ChaCha8Rng,
    device: &Device<B>,
) -> Linear<B> {
    let bound = 1.0 / (inputs as f32).sqrt();
    let values: Vec<f32> = (0..inputs * outputs)
        .map(|_| random.random_range(-bound..=bound))
        .collect();
    let mut layer = LinearConfig::new(inputs, outputs)
        .with_initializer(Initializer::Zeros)
        .init(device);
    layer.weight = Param::from_data(TensorData::new(values, [inputs, outputs]), device);
    layer
}

/// LoRA, the `[IMG]` rows, the mapper, `W_t` and the calibrator over a frozen language model.
#[derive(Module, Debug)]
pub struct PreferenceModel<B: Backend> {
    /// The language model; of it only the adapter trains.
    pub llama: LlamaForCausalLm<B>,
    /// The new vocabulary entries.
    pub image_tokens: ImageTokens<B>,
    /// From the states at `[IMG]` to conditioning tokens.
    pub modal_mapper: ModalMapper<B>,
    /// `W_t`, from the states at the prompt's tokens to the conditioning's width.
    pub text_projection: Linear<B>,
    /// The fusion.
    pub calibrator: BalanceCalibrator<B>,
    /// From `p_ret` to a token for the fusion's attention, where that is configured.
    pub retrieval_projection: Option<Linear<B>>,
    /// The shift's shares divided by [`SHARE_RATE`], `[Q]`, where that is configured.
    pub retrieval_shares: Option<Param<Tensor<B, 1>>>,
    /// `ln σ` of the exploration, `[1]`, where it is learned.
    pub log_sigma: Option<Param<Tensor<B, 1>>>,
}

/// What the model reads of a batch.
#[derive(Debug, Clone)]
pub struct Reading<'a, B: Backend> {
    /// Token ids of the preference prompts, without the `[IMG]` tokens.
    pub prompts: &'a [&'a [u32]],
    /// `E_K`, `[batch, Q, d]`.
    pub global: Tensor<B, 3>,
    /// `p_ret`, `[batch, d]`: retrieval's space is as wide as the conditioning, or `L_cal` could not be.
    pub retrieved: Tensor<B, 2>,
    /// The retrieval's shift, `[batch, Q, d]`, where the model takes it: see [`super::shift::retrieval_shift`].
    pub shift: Option<Tensor<B, 3>>,
}

/// Prompts as the language model's layers take them.
#[derive(Debug, Clone)]
pub(super) struct Embedded<B: Backend> {
    /// `[batch, L + R, h]`.
    pub states: Tensor<B, 3>,
    /// 1 at tokens, 0 at padding, `[batch, L + R]`.
    pub mask: Tensor<B, 2, Int>,
}

/// What the model makes of a batch of prompts.
#[derive(Debug, Clone)]
pub struct Preference<B: Backend> {
    /// `E_mm`, `[batch, L + Q, d]`.
    pub multimodal: Tensor<B, 3>,
    /// True where `E_mm` is padding, `[batch, L + Q]`.
    pub padding: Tensor<B, 2, Bool>,
    /// `E_gen`, `[batch, Q, d]`.
    pub general: Tensor<B, 3>,
}

impl<B: Backend> PreferenceModel<B> {
    /// Equations 7 to 9 of the method.
    pub fn forward(&self, reading: &Reading<'_, B>) -> Preference<B> {
        let embedded = self.embed(reading);
        let states = self
            .llama
            .forward_hidden(embedded.states.clone(), Some(embedded.mask.clone()));
        self.fuse(reading, embedded, states)
    }

    /// The same with `ln σ` as a parameter, starting at `log_sigma`, `[1]`.
    pub fn with_learned_sigma(self, log_sigma: Tensor<B, 1>) -> Self {
        Self {
            log_sigma: Some(Param::from_tensor(log_sigma)),
            ..self
        }
    }

    /// Whether [`Reading::shift`] is read.
    pub fn takes_shift(&self) -> bool {
        self.retrieval_shares.is_some()
    }

    /// Mean share of the retrieval's shift in `E_gen`; 0 without it.
    pub fn mean_share(&self) -> f32 {
        let shares = self.retrieval_shares.as_ref().map(|shares| shares.val());
        shares.map_or(0.0, |shares| {
            shares.mean().mul_scalar(SHARE_RATE).into_scalar().elem()
        })
    }

    /// (7) The preference prompts with the `[IMG]` tokens behind.
    pub(super) fn embed(&self, reading: &Reading<'_, B>) -> Embedded<B> {
        let device = reading.global.device();
        let [batch, ..] = reading.global.dims();
        assert_eq!(reading.prompts.len(), batch, "a prompt per conditioning");
        let longest = reading.prompts.iter().map(|p| p.len()).max().unwrap_or(0);
        let (ids, mask) = self.padded(reading.prompts, longest);
        let length = longest + self.image_tokens.count();
        let integers = |values| {
            Tensor::<B, 2, Int>::from_data(
                TensorData::new::<i64, _>(values, [batch, length]),
                &device,
            )
        };
        Embedded {
            states: self.image_tokens.embed(&self.llama, integers(ids)),
            mask: integers(mask),
        }
    }

    /// (8)–(9) From the language model's last hidden states to `E_gen`.
    pub(super) fn fuse(
        &self,
        reading: &Reading<'_, B>,
        embedded: Embedded<B>,
        states: Tensor<B, 3>,
    ) -> Preference<B> {
        let global = reading.global.clone();
        let device = global.device();
        let [batch, queries, width] = global.dims();
        let images = self.image_tokens.count();
        let longest = states.dims()[1] - images;
        // What trains computes in f32, whatever the language model is stored in.
        let states = states.cast(DType::F32);
        let shortcut = embedded.states.cast(DType::F32);
        let text = self
            .text_projection
            .forward(states.clone().narrow(1, 0, longest));
        let image = self.modal_mapper.forward(
            states.narrow(1, longest, images),
            shortcut.narrow(1, longest, images),
        );
        let multimodal = Tensor::cat(vec![text, image], 1);
        let real = |tokens| Tensor::<B, 2, Int>::ones([batch, tokens], &device).equal_elem(0);
        let text_padding = embedded.mask.narrow(1, 0, longest).equal_elem(0);
        let padding = Tensor::cat(vec![text_padding, real(queries)], 1);
        let (mut keys, mut key_padding) = (multimodal.clone(), padding.clone());
        if let Some(projection) = &self.retrieval_projection {
            let token = projection.forward(reading.retrieved.clone());
            keys = Tensor::cat(vec![keys, token.reshape([batch, 1, width])], 1);
            key_padding = Tensor::cat(vec![key_padding, real(1)], 1);
        }
        let mut general = self.calibrator.forward(global, keys, key_padding);
        if let (Some(shares), Some(shift)) = (&self.retrieval_shares, &reading.shift) {
            let shares = shares.val().mul_scalar(SHARE_RATE);
            general = general + shift.clone() * shares.reshape([1, queries, 1]);
        }
        Preference {
            multimodal,
            padding,
            general,
        }
    }

    /// Prompts padded on the left to `longest`, the `[IMG]` tokens behind; ids and mask.
    fn padded(&self, prompts: &[&[u32]], longest: usize) -> (Vec<i64>, Vec<i64>) {
        let images = self.image_tokens.ids(self.llama.vocabulary_size());
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for prompt in prompts {
            let pad = longest - prompt.len();
            ids.extend(std::iter::repeat_n(0, pad));
            ids.extend(prompt.iter().chain(&images).map(|id| i64::from(*id)));
            mask.extend(std::iter::repeat_n(0, pad));
            mask.extend(std::iter::repeat_n(1, prompt.len() + images.len()));
        }
        (ids, mask)
    }
}
