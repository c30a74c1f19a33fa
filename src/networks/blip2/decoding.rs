//! Greedy and beam decoding, with a key/value cache or without, of texts that OPT continues or T5 writes anew.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax, backend::Backend};

use super::beam::BeamSearch;
use super::cache::KeyValueCache;
use super::generate::CaptionOptions;
use super::model::{Blip2ForConditionalGeneration, ids_tensor};
use super::opt::{OptForCausalLm, Places};
use super::t5::{DecoderCache, Encoded, T5ForConditionalGeneration};

/// Texts under way, one per row.
pub(super) trait Texts<B: Backend> {
    fn rows(&self) -> usize;

    fn device(&self) -> B::Device;

    /// Scores of the token after each row, `[rows, vocabulary]`; `written` holds the new tokens of each row so far.
    fn next(&mut self, written: &[Vec<u32>]) -> Tensor<B, 2>;

    /// Row `i` goes on from what row `sources[i]` was.
    fn reorder(&mut self, sources: &[usize]);
}

/// OPT: the new tokens follow the prompt.
pub(super) struct Continuation<'a, B: Backend> {
    network: &'a Blip2ForConditionalGeneration<B>,
    model: &'a OptForCausalLm<B>,
    /// The prompts' embeddings, image included, one row per text under way.
    prompt: Tensor<B, 3>,
    mask: Vec<Vec<bool>>,
    cache: Option<KeyValueCache<B>>,
}

impl<'a, B: Backend> Continuation<'a, B> {
    pub(super) fn new(
        network: &'a Blip2ForConditionalGeneration<B>,
        model: &'a OptForCausalLm<B>,
        prompt: Tensor<B, 3>,
        mask: Vec<Vec<bool>>,
        options: &CaptionOptions,
    ) -> Self {
        let cache = || KeyValueCache::new(model.model.decoder.layers.len());
        Self {
            network,
            model,
            prompt,
            mask,
            cache: options.use_cache.then(cache),
        }
    }
}

impl<B: Backend> Texts<B> for Continuation<'_, B> {
    fn rows(&self) -> usize {
        self.mask.len()
    }

    fn device(&self) -> B::Device {
        self.prompt.device()
    }

    fn next(&mut self, written: &[Vec<u32>]) -> Tensor<B, 2> {
        let device = self.device();
        let started = written.first().is_some_and(|row| !row.is_empty());
        let embeds = match (&self.cache, started) {
            (_, false) => self.prompt.clone(),
            (Some(_), true) => self.network.embed(&last_of(written), &device),
            (None, true) => {
                let new = self.network.embed(written, &device);
                Tensor::cat(vec![self.prompt.clone(), new], 1)
            }
        };
        let places = Places::of(&self.mask, embeds.dims()[1], &device);
        for row in &mut self.mask {
            row.push(true);
        }
        let states = self.model.states(embeds, places, self.cache.as_mut());
        self.model.logits(last_state(states)).squeeze_dim(1)
    }

    fn reorder(&mut self, sources: &[usize]) {
        self.mask = sources.iter().map(|&row| self.mask[row].clone()).collect();
        let sources = row_indices(sources, &self.device());
        match &mut self.cache {
            Some(cache) => cache.reorder(sources),
            None => self.prompt = self.prompt.clone().select(0, sources),
        }
    }
}

/// T5: the prompt is read once, the new tokens follow the start token.
pub(super) struct Translation<'a, B: Backend> {
    model: &'a T5ForConditionalGeneration<B>,
    encoded: Encoded<B>,
    start: u32,
    cache: Option<DecoderCache<B>>,
}

impl<'a, B: Backend> Translation<'a, B> {
    pub(super) fn new(
        model: &'a T5ForConditionalGeneration<B>,
        encoded: Encoded<B>,
        start: u32,
        options: &CaptionOptions,
    ) -> Self {
        Self {
            model,
            encoded,
            start,
            cache: options.use_cache.then(|| model.cache()),
        }
    }
}

impl<B: Backend> Texts<B> for Translation<'_, B> {
    fn rows(&self) -> usize {
        self.encoded.states.dims()[0]
    }

    fn device(&self) -> B::Device {
        self.encoded.states.device()
    }

    fn next(&mut self, written: &[Vec<u32>]) -> Tensor<B, 2> {
        let begun: Vec<Vec<u32>> = written
            .iter()
            .map(|row| [&[self.start], row.as_slice()].concat())
            .collect();
        let total = begun.first().map_or(0, Vec::len);
        let new = match self.cache {
            Some(_) => last_of(&begun),
            None => begun,
        };
        let ids = ids_tensor(&new, &self.device());
        let states = self
            .model
            .states(ids, total, &self.encoded, self.cache.as_mut());
        self.model.logits(last_state(states)).squeeze_dim(1)
    }

    fn reorder(&mut self, sources: &[usize]) {
        let sources = row_indices(sources, &self.device());
        self.encoded.reorder(sources.clone());
        if let Some(cache) = &mut self.cache {
            cache.written.reorder(sources.clone());
            cache.read.reorder(sources);
        }
    }
}

/// The new tokens of each row, padded up to the longest.
pub(super) fn decode<B: Backend>(
    texts: impl Texts<B>,
    ends: &[u32],
    padding: u32,
    options: &CaptionOptions,
) -> Vec<Vec<u32>> {
    match options.num_beams {
        1 => greedy(texts, ends, padding, options.max_new_tokens),
        _ => beams(texts, ends, padding, options),
    }
}

fn greedy<B: Backend>(
    mut texts: impl Texts<B>,
    ends: &[u32],
    padding: u32,
    max_new_tokens: usize,
) -> Vec<Vec<u32>> {
    let mut written = vec![Vec::new(); texts.rows()];
    let mut finished = vec![false; written.len()];
    for _ in 0..max_new_tokens {
        let best = host_ids(texts.next(&written).argmax(1).into_data());
        for ((row, done), id) in written.iter_mut().zip(&mut finished).zip(best) {
            row.push(if *done { padding } else { id });
            *done |= ends.contains(&id);
        }
        if finished.iter().all(|done| *done) {
            break;
        }
    }
    written
}

fn beams<B: Backend>(
    mut texts: impl Texts<B>,
    ends: &[u32],
    padding: u32,
    options: &CaptionOptions,
) -> Vec<Vec<u32>> {
    let rows = texts.rows();
    let mut search = BeamSearch::new(rows, ends, options);
    // The prompt is read once per image; its beams part afterwards.
    let spread: Vec<usize> = (0..rows)
        .flat_map(|row| vec![row; options.num_beams])
        .collect();
    let first = log_softmax(texts.next(&vec![Vec::new(); rows]), 1);
    texts.reorder(&spread);
    let mut scores = first.select(0, row_indices(&spread, &texts.device()));
    loop {
        let sources = search.advance(&scores.into_data().iter::<f32>().collect::<Vec<f32>>());
        if search.is_done() {
            break;
        }
        texts.reorder(&sources);
        scores = log_softmax(texts.next(&search.running()), 1);
    }
    let mut new = search.best();
    // The reference's beam search takes a padding token of id 0 for none, and fills up with the end token.
    let padding = match (padding, ends.first()) {
        (0, Some(end)) => *end,
        _ => padding,
    };
    let longest = new.iter().map(Vec::len).max().unwrap_or(0);
    for row in &mut new {
        row.resize(longest, padding);
    }
    new
}

fn last_of(written: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let last = |row: &Vec<u32>| row.last().copied().into_iter().collect();
    written.iter().map(last).collect()
}

fn last_state<B: Backend>(states: Tensor<B, 3>) -> Tensor<B, 3> {
    let [rows, tokens, width] = states.dims();
    states.slice([0..rows, tokens - 1..tokens, 0..width])
}

fn row_indices<B: Backend>(rows: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    Tensor::from_data(rows.as_slice(), device)
}

fn host_ids(data: TensorData) -> Vec<u32> {
    data.iter::<i64>().map(|id| id as u32).collect()
}
