//! The whole network: image → vision tower → Q-Former → words the language model continues.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use thiserror::Error;

use super::config::{Blip2Config, Blip2ConfigError};
use super::language::{LanguageModel, TextConfig};
use super::opt::Places;
use super::qformer::Blip2QFormerModel;
use super::vision::Blip2VisionModel;

/// Inputs BLIP-2 cannot take.
#[derive(Debug, Error, PartialEq)]
pub enum Blip2Error {
    /// The reference would silently ignore the image.
    #[error(
        "row {row} of the prompt holds {found} image placeholders (token {token:?}), the network wants {expected}: \
         put that many before the text"
    )]
    Placeholders {
        row: usize,
        token: Option<u32>,
        expected: usize,
        found: usize,
    },
    /// An id that has no word embedding.
    #[error(
        "row {row} of the prompt holds the token {token}, the vocabulary ends at {vocabulary}: another tokeniser?"
    )]
    Token {
        row: usize,
        token: u32,
        vocabulary: usize,
    },
    /// Rows and masks of different lengths, or no row at all.
    #[error(
        "row {row} of the prompt has {found} tokens, expected {expected}: pad the rows to one length"
    )]
    Rows {
        row: usize,
        expected: usize,
        found: usize,
    },
    /// As many prompts as images.
    #[error("{prompts} prompts for {images} images: one each")]
    Batch { images: usize, prompts: usize },
    /// The decoder has no position for the last token.
    #[error(
        "{found} tokens (prompt, image and answer) but {limit} positions: shorten the prompt or max_new_tokens"
    )]
    TooLong { limit: usize, found: usize },
    /// Pixels of another size than the tower was made for.
    #[error("images of shape {found:?}, the vision tower wants [any, 3, {side}, {side}]")]
    Pixels { side: usize, found: Vec<usize> },
    /// Options that mean nothing.
    #[error("{name} is {found}, expected {expected}")]
    Option {
        name: &'static str,
        expected: &'static str,
        found: String,
    },
    /// A caption starts with the start token.
    #[error("text_config.bos_token_id is missing: give a prompt")]
    NoStartToken,
    /// T5 starts an answer with a token of its own.
    #[error(
        "text_config.decoder_start_token_id is missing, and so is bos_token_id: no answer can start"
    )]
    NoDecoderStart,
    /// A way of calling that the other language model has.
    #[error("the language model is {found}; {way}")]
    LanguageModel {
        found: &'static str,
        way: &'static str,
    },
}

/// Prompts as token ids, padded to one length.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenBatch {
    /// Token ids, one row per image.
    pub ids: Vec<Vec<u32>>,
    /// True where a token is real, false where it pads.
    pub mask: Vec<Vec<bool>>,
}

impl TokenBatch {
    /// Rows without padding.
    pub fn unpadded(ids: Vec<Vec<u32>>) -> Self {
        let mask = ids.iter().map(|row| vec![true; row.len()]).collect();
        Self { ids, mask }
    }

    /// Tokens per row.
    pub fn width(&self) -> usize {
        self.ids.first().map_or(0, Vec::len)
    }
}

/// The image as the language model's first words, with the states on the way.
#[derive(Debug, Clone)]
pub struct ImageFeatures<B: Backend> {
    /// `[batch, 1 + patches, vision width]`
    pub vision_last_hidden_state: Tensor<B, 3>,
    /// `[batch, queries, Q-Former width]`
    pub qformer_output: Tensor<B, 3>,
    /// `[batch, queries, text width]`
    pub language_projection: Tensor<B, 3>,
}

/// What T5 makes of image and prompt.
#[derive(Debug, Clone)]
pub struct Answer<B: Backend> {
    /// `[rows, prompt tokens, width]`; the states of padding mean nothing.
    pub encoder_last_hidden_state: Tensor<B, 3>,
    /// Scores of the token after each of the answer's, `[rows, answer tokens, vocabulary]`.
    pub logits: Tensor<B, 3>,
}

/// BLIP-2 with OPT or T5 (transformers' Blip2ForConditionalGeneration).
#[derive(Module, Debug)]
pub struct Blip2ForConditionalGeneration<B: Backend> {
    pub vision_model: Blip2VisionModel<B>,
    pub query_tokens: Param<Tensor<B, 3>>,
    pub qformer: Blip2QFormerModel<B>,
    pub language_projection: Linear<B>,
    pub language_model: LanguageModel<B>,
    #[module(skip)]
    image_size: usize,
    #[module(skip)]
    image_token: Option<u32>,
    #[module(skip)]
    text: TextConfig,
}

impl Blip2Config {
    /// A network with random weights.
    ///
    /// # Errors
    /// As [`Blip2Config::validate`].
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<Blip2ForConditionalGeneration<B>, Blip2ConfigError> {
        self.validate()?;
        let range = self.initializer_range;
        let normal = Initializer::Normal {
            mean: 0.0,
            std: range,
        };
        let (qformer, text) = (&self.qformer_config, &self.text_config);
        let projection = LinearConfig::new(qformer.hidden_size, text.hidden_size())
            .with_initializer(normal.clone());
        Ok(Blip2ForConditionalGeneration {
            vision_model: self.vision_config.init(range, device),
            query_tokens: normal.init([1, self.num_query_tokens, qformer.hidden_size], device),
            qformer: qformer.init(self.vision_config.hidden_size, range, device),
            language_projection: projection.init(device),
            language_model: text.init(range, device)?,
            image_size: self.vision_config.image_size,
            image_token: self.image_token_index,
            text: text.clone(),
        })
    }
}

impl<B: Backend> Blip2ForConditionalGeneration<B> {
    /// Image positions per row.
    pub fn num_query_tokens(&self) -> usize {
        self.query_tokens.dims()[1]
    }

    /// The language model's configuration: special tokens, vocabulary, positions.
    pub fn text_config(&self) -> &TextConfig {
        &self.text
    }

    /// Pixels `[batch, 3, side, side]`, normalised as the preprocessor says → what the language model will read.
    ///
    /// # Errors
    /// When the images have another size than the tower was made for.
    pub fn image_features(
        &self,
        pixel_values: Tensor<B, 4>,
    ) -> Result<ImageFeatures<B>, Blip2Error> {
        let shape = pixel_values.dims();
        if shape[1..] != [3, self.image_size, self.image_size] {
            return Err(Blip2Error::Pixels {
                side: self.image_size,
                found: shape.to_vec(),
            });
        }
        let embeddings = &self.vision_model.embeddings;
        let pixel_values = pixel_values.cast(embeddings.patch_embedding.weight.val().dtype());
        Ok(self.ask(self.vision_model.forward(pixel_values)))
    }

    /// What the Q-Former makes of the vision tower's states `[batch, 1 + patches, vision width]`.
    pub fn ask(&self, vision_last_hidden_state: Tensor<B, 3>) -> ImageFeatures<B> {
        let batch = vision_last_hidden_state.dims()[0];
        let [_, queries, width] = self.query_tokens.dims();
        let query = self.query_tokens.val().expand([batch, queries, width]);
        let answers = self
            .qformer
            .forward(query, vision_last_hidden_state.clone());
        ImageFeatures {
            vision_last_hidden_state,
            language_projection: self.language_projection.forward(answers.clone()),
            qformer_output: answers,
        }
    }

    /// Scores of the next token at every place, `[batch, tokens, vocabulary]`, where the language model is OPT.
    ///
    /// # Errors
    /// When a prompt has no room for the image, unknown tokens, or more tokens than the decoder has positions; with T5,
    /// whose scores are those of an [`answer`](Self::answer).
    pub fn forward(
        &self,
        pixel_values: Tensor<B, 4>,
        tokens: &TokenBatch,
    ) -> Result<Tensor<B, 3>, Blip2Error> {
        self.check(pixel_values.dims()[0], tokens, 0)?;
        let image = self.image_features(pixel_values)?;
        self.read(image.language_projection, tokens)
    }

    /// As [`forward`](Self::forward), from images already projected: `[batch, queries, text width]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn read(
        &self,
        language_projection: Tensor<B, 3>,
        tokens: &TokenBatch,
    ) -> Result<Tensor<B, 3>, Blip2Error> {
        let LanguageModel::Opt(model) = &self.language_model else {
            return Err(Blip2Error::LanguageModel {
                found: self.text.model_type(),
                way: "give the answer's tokens, too",
            });
        };
        let device = language_projection.device();
        self.check(language_projection.dims()[0], tokens, 0)?;
        let embeds = self.place_image(&tokens.ids, language_projection);
        let places = Places::of(&tokens.mask, tokens.width(), &device);
        Ok(model.logits(model.states(embeds, places, None)))
    }

    /// T5's states of image and prompt, and its scores after each of `answers` (start token first, rows of one length).
    ///
    /// # Errors
    /// When a prompt has no room for the image or unknown tokens, an answer has unknown tokens or another length; with
    /// OPT, which goes on in the prompt: [`forward`](Self::forward).
    pub fn answer(
        &self,
        pixel_values: Tensor<B, 4>,
        tokens: &TokenBatch,
        answers: &[Vec<u32>],
    ) -> Result<Answer<B>, Blip2Error> {
        let LanguageModel::T5(model) = &self.language_model else {
            return Err(Blip2Error::LanguageModel {
                found: self.text.model_type(),
                way: "it continues the prompt and takes no answer apart from it",
            });
        };
        let device = pixel_values.device();
        self.check(pixel_values.dims()[0], tokens, 0)?;
        self.check_answers(tokens.ids.len(), answers)?;
        let image = self.image_features(pixel_values)?.language_projection;
        let encoded = model.encode(self.place_image(&tokens.ids, image), &tokens.mask);
        Ok(Answer {
            logits: model.decode(ids_tensor(answers, &device), &encoded),
            encoder_last_hidden_state: encoded.states,
        })
    }

    fn check_answers(&self, prompts: usize, answers: &[Vec<u32>]) -> Result<(), Blip2Error> {
        if answers.len() != prompts {
            return Err(Blip2Error::Batch {
                images: prompts,
                prompts: answers.len(),
            });
        }
        let expected = answers.first().map_or(0, Vec::len).max(1);
        let vocabulary = self.text.vocab_size();
        for (row, ids) in answers.iter().enumerate() {
            let found = ids.len();
            if found != expected {
                return Err(Blip2Error::Rows {
                    row,
                    expected,
                    found,
                });
            }
            if let Some(&token) = ids.iter().find(|id| **id as usize >= vocabulary) {
                return Err(Blip2Error::Token {
                    row,
                    token,
                    vocabulary,
                });
            }
        }
        Ok(())
    }

    /// Whether `tokens` can be read and continued by `max_new_tokens`.
    pub(super) fn check(
        &self,
        images: usize,
        tokens: &TokenBatch,
        max_new_tokens: usize,
    ) -> Result<(), Blip2Error> {
        if tokens.ids.len() != images || tokens.mask.len() != images {
            return Err(Blip2Error::Batch {
                images,
                prompts: tokens.ids.len().min(tokens.mask.len()),
            });
        }
        let (expected, vocabulary) = (self.num_query_tokens(), self.text.vocab_size());
        for (row, (ids, mask)) in tokens.ids.iter().zip(&tokens.mask).enumerate() {
            for found in [ids.len(), mask.len()] {
                if found != tokens.width() || found == 0 {
                    return Err(Blip2Error::Rows {
                        row,
                        expected: tokens.width().max(1),
                        found,
                    });
                }
            }
            let found = ids.iter().filter(|id| self.is_image(**id)).count();
            if found != expected {
                return Err(Blip2Error::Placeholders {
                    row,
                    token: self.image_token,
                    expected,
                    found,
                });
            }
            let foreign = ids
                .iter()
                .find(|id| **id as usize >= vocabulary && !self.is_image(**id));
            if let Some(&token) = foreign {
                return Err(Blip2Error::Token {
                    row,
                    token,
                    vocabulary,
                });
            }
            // The last new token is never read again.
            let found =
                mask.iter().filter(|real| **real).count() + max_new_tokens.saturating_sub(1);
            if let Some(limit) = self.text.max_positions().filter(|limit| found > *limit) {
                return Err(Blip2Error::TooLong { limit, found });
            }
        }
        Ok(())
    }

    /// Whether `id` holds the place of the image. Configurations older than the placeholder get one of ours.
    fn is_image(&self, id: u32) -> bool {
        id == self.image_placeholder()
    }

    /// The id that stands for one image position in prompts.
    pub fn image_placeholder(&self) -> u32 {
        self.image_token.unwrap_or(u32::MAX)
    }

    /// Word embeddings with the image in the placeholders' places, `[rows, tokens, word width]`.
    ///
    /// The reference scatters the projected values in reading order (`masked_scatter`); that is one query per
    /// placeholder unless the word embeddings are narrower than the decoder, and then this does the same.
    pub(super) fn place_image(&self, ids: &[Vec<u32>], image: Tensor<B, 3>) -> Tensor<B, 3> {
        let device = image.device();
        let words = self.embed(ids, &device);
        let [rows, tokens, width] = words.dims();
        let image_rows = rows * self.num_query_tokens();
        let image = image
            .flatten::<1>(0, 2)
            .slice([0..image_rows * width])
            .reshape([image_rows, width]);
        let mut next_image = rows * tokens;
        let sources: Vec<i64> = ids
            .iter()
            .flatten()
            .enumerate()
            .map(|(place, id)| match self.is_image(*id) {
                false => place as i64,
                true => {
                    next_image += 1;
                    (next_image - 1) as i64
                }
            })
            .collect();
        let sources = Tensor::<B, 1, Int>::from_data(sources.as_slice(), &device);
        let all = Tensor::cat(vec![words.reshape([rows * tokens, width]), image], 0);
        all.select(0, sources).reshape([rows, tokens, width])
    }

    /// Word embeddings of `ids`; placeholders get any row, they are replaced.
    pub(super) fn embed(&self, ids: &[Vec<u32>], device: &B::Device) -> Tensor<B, 3> {
        let word = |id: &u32| if self.is_image(*id) { 0 } else { *id };
        let ids: Vec<Vec<u32>> = ids
            .iter()
            .map(|row| row.iter().map(word).collect())
            .collect();
        self.language_model.embed(ids_tensor(&ids, device))
    }
}

/// Rows of one length as a tensor, `[rows, tokens]`.
pub(super) fn ids_tensor<B: Backend>(ids: &[Vec<u32>], device: &B::Device) -> Tensor<B, 2, Int> {
    let shape = [ids.len(), ids.first().map_or(0, Vec::len)];
    let ids: Vec<i64> = ids.iter().flatten().map(|id| i64::from(*id)).collect();
    Tensor::from_data(TensorData::new(ids, shape), device)
}
