//! Greedy and beam decoding, with a key/value cache or without; the reference is transformers' `generate`.

use burn::tensor::{Tensor, TensorData, activation::log_softmax, backend::Backend};
use serde::{Deserialize, Serialize};

use super::beam::BeamSearch;
use super::cache::KeyValueCache;
use super::model::{Blip2Error, Blip2ForConditionalGeneration, TokenBatch};
use super::opt::Places;

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
        let rows = pixel_values.dims()[0];
        let mut prompt = vec![self.image_placeholder(); self.num_query_tokens()];
        match prompt_ids {
            Some(ids) => prompt.extend(ids),
            None => prompt.push(
                self.text_config()
                    .bos_token_id
                    .ok_or(Blip2Error::NoStartToken)?,
            ),
        }
        let start = prompt.len();
        let tokens = TokenBatch::unpadded(vec![prompt; rows]);
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

    /// Continues `tokens`; each row holds the prompt, the new tokens, and padding up to the longest row.
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
        let device = pixel_values.device();
        let image = self.image_features(pixel_values)?.language_projection;
        let decoding = Decoding {
            network: self,
            prompt: self.place_image(&tokens.ids, image),
            mask: tokens.mask.clone(),
            cache: options
                .use_cache
                .then(|| KeyValueCache::new(self.language_model.model.decoder.layers.len())),
            device,
        };
        let ends = self.end_tokens(options);
        let padding = self
            .text_config()
            .pad_token_id
            .or(ends.first().copied())
            .unwrap_or(0);
        Ok(match options.num_beams {
            1 => greedy(
                decoding,
                &tokens.ids,
                &ends,
                padding,
                options.max_new_tokens,
            ),
            _ => beams(decoding, &tokens.ids, &ends, padding, options),
        })
    }

    fn end_tokens(&self, options: &CaptionOptions) -> Vec<u32> {
        options
            .end_tokens
            .clone()
            .unwrap_or_else(|| self.text_config().end_tokens())
    }
}

/// Texts under way.
struct Decoding<'a, B: Backend> {
    network: &'a Blip2ForConditionalGeneration<B>,
    /// The prompts' embeddings, image included, one row per text under way.
    prompt: Tensor<B, 3>,
    mask: Vec<Vec<bool>>,
    cache: Option<KeyValueCache<B>>,
    device: B::Device,
}

impl<B: Backend> Decoding<'_, B> {
    /// Scores of the token after each row, `[rows, vocabulary]`; `written` holds the new tokens of each row so far.
    fn next(&mut self, written: &[Vec<u32>]) -> Tensor<B, 2> {
        let started = written.first().is_some_and(|row| !row.is_empty());
        let embeds = match (&self.cache, started) {
            (_, false) => self.prompt.clone(),
            (Some(_), true) => {
                let last: Vec<Vec<u32>> = written
                    .iter()
                    .map(|row| row[row.len() - 1..].to_vec())
                    .collect();
                self.network.embed(&last, &self.device)
            }
            (None, true) => Tensor::cat(
                vec![
                    self.prompt.clone(),
                    self.network.embed(written, &self.device),
                ],
                1,
            ),
        };
        let [rows, tokens, _] = embeds.dims();
        let places = Places::of(&self.mask, tokens, &self.device);
        for row in &mut self.mask {
            row.push(true);
        }
        let model = &self.network.language_model;
        let states = model.states(embeds, places, self.cache.as_mut());
        let width = states.dims()[2];
        let last = states.slice([0..rows, tokens - 1..tokens, 0..width]);
        model.logits(last).squeeze_dim(1)
    }

    /// Row `i` goes on from what row `sources[i]` was.
    fn reorder(&mut self, sources: &[usize]) {
        self.mask = sources.iter().map(|&row| self.mask[row].clone()).collect();
        match &mut self.cache {
            Some(cache) => cache.reorder(sources, &self.device),
            None => {
                let indices: Vec<i64> = sources.iter().map(|&row| row as i64).collect();
                let indices = Tensor::from_data(indices.as_slice(), &self.device);
                self.prompt = self.prompt.clone().select(0, indices);
            }
        }
    }
}

fn greedy<B: Backend>(
    mut decoding: Decoding<'_, B>,
    prompts: &[Vec<u32>],
    ends: &[u32],
    padding: u32,
    max_new_tokens: usize,
) -> Vec<Vec<u32>> {
    let mut written = vec![Vec::new(); prompts.len()];
    let mut finished = vec![false; prompts.len()];
    for _ in 0..max_new_tokens {
        let best = host_ids(decoding.next(&written).argmax(1).into_data());
        for ((row, done), id) in written.iter_mut().zip(&mut finished).zip(best) {
            row.push(if *done { padding } else { id });
            *done |= ends.contains(&id);
        }
        if finished.iter().all(|done| *done) {
            break;
        }
    }
    prompts
        .iter()
        .zip(written)
        .map(|(prompt, new)| [prompt.clone(), new].concat())
        .collect()
}

fn beams<B: Backend>(
    mut decoding: Decoding<'_, B>,
    prompts: &[Vec<u32>],
    ends: &[u32],
    padding: u32,
    options: &CaptionOptions,
) -> Vec<Vec<u32>> {
    let mut search = BeamSearch::new(prompts.len(), ends, options);
    // The prompt is read once per image; its beams part afterwards.
    let spread: Vec<usize> = (0..prompts.len())
        .flat_map(|row| vec![row; options.num_beams])
        .collect();
    let mut scores = log_softmax(decoding.next(&vec![Vec::new(); prompts.len()]), 1);
    decoding.reorder(&spread);
    scores = scores.select(0, {
        let rows: Vec<i64> = spread.iter().map(|&row| row as i64).collect();
        Tensor::from_data(rows.as_slice(), &decoding.device)
    });
    loop {
        let sources = search.advance(&scores.into_data().iter::<f32>().collect::<Vec<f32>>());
        if search.is_done() {
            break;
        }
        decoding.reorder(&sources);
        scores = log_softmax(decoding.next(&search.running()), 1);
    }
    let new = search.best();
    let longest = new.iter().map(Vec::len).max().unwrap_or(0);
    let row = |(prompt, mut new): (&Vec<u32>, Vec<u32>)| {
        new.resize(longest, padding);
        [prompt.clone(), new].concat()
    };
    prompts.iter().zip(new).map(row).collect()
}

fn host_ids(data: TensorData) -> Vec<u32> {
    data.iter::<i64>().map(|id| id as u32).collect()
}
