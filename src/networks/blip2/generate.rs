//! Captions and answers; the reference is transformers' `generate`.

use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use super::decoding::{Continuation, Translation, decode};
use super::language::LanguageModel;
use super::model::{Blip2Error, Blip2ForConditionalGeneration, TokenBatch};

/// How captions are decoded. The defaults are the reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptionOptions {
    /// Most tokens to add.
    pub max_new_tokens: usize,
    /// Beams kept; 1 decodes greedily.
    pub num_beams: usize,
    /// Exponent of the length that divides a beam's log-probability: above 0 favours long texts.
    pub length_penalty: f64,
    /// When a beam search ends.
    pub early_stopping: EarlyStopping,
    /// The tokens that end a text, in place of the configuration's.
    pub end_tokens: Option<Vec<u32>>,
    /// Keep keys and values. Off, every step reads the whole text again: slower, same answer.
    pub use_cache: bool,
}

impl Default for CaptionOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 20,
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
            end_tokens: None,
            use_cache: true,
        }
    }
}

/// When a beam search ends (transformers' `early_stopping`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EarlyStopping {
    /// As soon as there are as many finished texts as beams (`True`).
    Full,
    /// When the best running beam, judged at its present length, cannot beat the worst finished text (`False`).
    Heuristic,
    /// When no running beam can beat it at any length (`"never"`).
    Never,
}

impl<B: Backend> Blip2ForConditionalGeneration<B> {
    /// Captions of images `[batch, 3, side, side]`: the new tokens of each, without the end token and padding.
    ///
    /// `prompt_ids` is the text that follows the image, start token included; without it the start token alone.
    ///
    /// # Errors
    /// As [`Blip2ForConditionalGeneration::generate`].
    pub fn caption(
        &self,
        pixel_values: Tensor<B, 4>,
        prompt_ids: Option<&[u32]>,
        options: &CaptionOptions,
    ) -> Result<Vec<Vec<u32>>, Blip2Error> {
        let tokens = self.prompts(pixel_values.dims()[0], prompt_ids)?;
        // OPT's texts begin with the prompt, T5's with its start token.
        let start = match &self.language_model {
            LanguageModel::Opt(_) => tokens.width(),
            LanguageModel::T5(_) => 1,
        };
        let ends = self.end_tokens(options);
        let texts = self.generate(pixel_values, &tokens, options)?;
        let caption = |text: Vec<u32>| {
            text[start..]
                .iter()
                .copied()
                .take_while(|id| !ends.contains(id))
                .collect()
        };
        Ok(texts.into_iter().map(caption).collect())
    }

    /// A prompt for each of `rows` images: placeholders, then the text, start token included; without one the start
    /// token alone.
    ///
    /// # Errors
    /// When there is no text and the configuration names no start token.
    pub fn prompts(
        &self,
        rows: usize,
        prompt_ids: Option<&[u32]>,
    ) -> Result<TokenBatch, Blip2Error> {
        let mut prompt = vec![self.image_placeholder(); self.num_query_tokens()];
        match prompt_ids {
            Some(ids) => prompt.extend(ids),
            None => prompt.push(
                self.text_config()
                    .start_token()
                    .ok_or(Blip2Error::NoStartToken)?,
            ),
        }
        Ok(TokenBatch::unpadded(vec![prompt; rows]))
    }

    /// Continues or answers `tokens`. Each row holds what the text begins with — OPT's the prompt, T5's the start token
    /// of answers — the new tokens, and padding up to the longest row.
    ///
    /// # Errors
    /// When a prompt has no room for the image, unknown tokens, or too many; when the images have another size; when
    /// the options mean nothing.
    pub fn generate(
        &self,
        pixel_values: Tensor<B, 4>,
        tokens: &TokenBatch,
        options: &CaptionOptions,
    ) -> Result<Vec<Vec<u32>>, Blip2Error> {
        for (name, value) in [
            ("max_new_tokens", options.max_new_tokens),
            ("num_beams", options.num_beams),
        ] {
            if value == 0 {
                return Err(Blip2Error::Option {
                    name,
                    expected: "at least 1",
                    found: value.to_string(),
                });
            }
        }
        if !options.length_penalty.is_finite() {
            let found = options.length_penalty.to_string();
            return Err(Blip2Error::Option {
                name: "length_penalty",
                expected: "a finite number",
                found,
            });
        }
        self.check(pixel_values.dims()[0], tokens, options.max_new_tokens)?;
        let text = self.text_config();
        let ends = self.end_tokens(options);
        let padding = text.pad_token().or(ends.first().copied()).unwrap_or(0);
        let image = self.image_features(pixel_values)?.language_projection;
        let prompt = self.place_image(&tokens.ids, image);
        let (begun, new) = match &self.language_model {
            LanguageModel::Opt(model) => {
                let texts = Continuation::new(self, model, prompt, tokens.mask.clone(), options);
                (tokens.ids.clone(), decode(texts, &ends, padding, options))
            }
            LanguageModel::T5(model) => {
                let start = text.decoder_start().ok_or(Blip2Error::NoDecoderStart)?;
                let encoded = model.encode(prompt, &tokens.mask);
                let texts = Translation::new(model, encoded, start, options);
                let begun = vec![vec![start]; tokens.ids.len()];
                (begun, decode(texts, &ends, padding, options))
            }
        };
        Ok(begun
            .into_iter()
            .zip(new)
            .map(|(begun, new)| [begun, new].concat())
            .collect())
    }

    fn end_tokens(&self, options: &CaptionOptions) -> Vec<u32> {
        options
            .end_tokens
            .clone()
            .unwrap_or_else(|| self.text_config().end_tokens())
    }
}
