//! Textual Inversion (Gal et al., 2023): for each user, the vectors of a new word, learned from the pictures of the
//! history; the generator and every other row of the word table stay as they are.
//!
//! Users train side by side. The loss is a sum over users and the optimiser works value by value, so a user's vectors
//! are those that training alone would give.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Int, Tensor, TensorData};
use image::RgbImage;
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::denoising::{Denoiser, Latents, Noising, stream};
use super::fitting::{FittingConfig, fit};
use super::method::{DrawError, Method, MethodError, MethodKind, Request, Watch};
use super::studio::Studio;
use crate::networks::clip::ClipTextModel;
use crate::networks::diffusion::AutoencoderKl;
use crate::optimisation::{AdamWConfig, Schedule};
use crate::text::TextTokenizer;

/// The new word, the same for every user; its vectors are the user's.
const TOKEN: &str = "<user>";

/// `[baselines.textual_inversion]`. The learning rate is the original's; it takes thousands of steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextualInversionConfig {
    /// Vectors per user (original: 1).
    pub num_vectors: usize,
    /// Words whose mean the vectors start from.
    pub initial_words: String,
    /// The prompt in training and drawing, with `{token}` (the new word) and `{text}` (the item's own words, of which
    /// `preparation.reference_parts` are told). The new word comes first by default: long texts are cut at their end.
    pub prompt: String,
    /// Users trained side by side; changes memory, not results.
    pub users_per_group: usize,
    /// `batch_size` is pictures per user and step; `optimizer.max_gradient_norm` must be 0.
    pub training: FittingConfig,
}

impl Default for TextualInversionConfig {
    fn default() -> Self {
        Self {
            num_vectors: 1,
            initial_words: "picture".into(),
            prompt: "{token}, {text}".into(),
            users_per_group: 8,
            training: FittingConfig {
                steps: 200,
                batch_size: 2,
                schedule: Schedule {
                    learning_rate: 5e-3,
                    warmup_steps: 10,
                    ..Schedule::default()
                },
                optimizer: AdamWConfig {
                    max_gradient_norm: 0.0,
                    ..AdamWConfig::default()
                },
                ..FittingConfig::default()
            },
        }
    }
}

impl TextualInversionConfig {
    /// Refuses values without a meaning, with the reason.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.num_vectors == 0 || self.users_per_group == 0 {
            return Err("num_vectors and users_per_group must be at least 1".into());
        }
        for place in ["{token}", "{text}"] {
            if self.prompt.matches(place).count() != 1 {
                return Err(format!(
                    "prompt = \"{}\" must hold {place} once",
                    self.prompt
                ));
            }
        }
        if self.training.optimizer.max_gradient_norm != 0.0 {
            return Err(
                "training.optimizer.max_gradient_norm must be 0: users who train side by side would scale each other".into(),
            );
        }
        self.training
            .validate()
            .map_err(|error| format!("training.{error}"))
    }

    fn words(&self, text: &str) -> String {
        let numbered = (1..self.num_vectors).map(|number| format!("{TOKEN}_{number}"));
        let tokens: Vec<String> = std::iter::once(TOKEN.to_string()).chain(numbered).collect();
        self.prompt
            .replace("{token}", &tokens.join(" "))
            .replace("{text}", text)
    }
}

/// The vectors of a group of users, `[users, vectors, width]`: all that trains.
#[derive(Module, Debug)]
pub struct UserVectors<B: Backend> {
    /// The vectors.
    pub vectors: Param<Tensor<B, 3>>,
}

/// A frozen text tower that reads learned words.
#[derive(Debug, Clone)]
pub struct InvertedEncoder<B: Backend> {
    tower: ClipTextModel<B>,
    tokenizer: TextTokenizer,
    length: usize,
    first: u32,
    num_vectors: usize,
}

impl<B: Backend> InvertedEncoder<B> {
    /// An encoder of prompts of `length` tokens, over `tower` and its `tokenizer`.
    ///
    /// # Errors
    /// When the tokeniser knows the new word already under ids that are not in order.
    pub fn new(
        tower: ClipTextModel<B>,
        tokenizer: &TextTokenizer,
        length: usize,
        num_vectors: usize,
    ) -> Result<Self, MethodError> {
        let names: Vec<String> = std::iter::once(TOKEN.to_string())
            .chain((1..num_vectors).map(|number| format!("{TOKEN}_{number}")))
            .collect();
        let tokenizer = tokenizer.clone().with_added_tokens(&names);
        let ids: Option<Vec<u32>> = names.iter().map(|name| tokenizer.id(name)).collect();
        let ids = ids.unwrap_or_default();
        let in_order = ids.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let (Some(&first), true) = (ids.first(), in_order) else {
            return Err(MethodError::Setting {
                key: "textual_inversion.num_vectors",
                value: num_vectors.to_string(),
                reason: format!("the tokeniser did not take {TOKEN} as a new word"),
            });
        };
        Ok(Self {
            tower: tower.no_grad(),
            tokenizer,
            length,
            first,
            num_vectors,
        })
    }

    /// The mean of the tower's vectors of `words`, `[width]` on the host.
    fn initial(&self, words: &str) -> Vec<f32> {
        let table = self.tower.embeddings.token_embedding.weight.val();
        let [rows, width] = table.dims();
        let ids = self.tokenizer.encode_plain(words);
        let values: Vec<f32> = table.into_data().iter::<f32>().collect();
        let known: Vec<&[f32]> = ids
            .iter()
            .map(|id| *id as usize)
            .filter(|id| *id < rows)
            .map(|id| &values[id * width..(id + 1) * width])
            .collect();
        (0..width)
            .map(|column| {
                known.iter().map(|row| row[column]).sum::<f32>() / known.len().max(1) as f32
            })
            .collect()
    }

    /// Final states of `prompts`, row `i` read with `vectors[i]`.
    ///
    /// # Shapes
    /// `vectors` `[prompts, vectors, width]` → `[prompts, length, width]`.
    pub fn states(&self, prompts: &[String], vectors: Tensor<B, 3>) -> Tensor<B, 3> {
        let device = vectors.device();
        let [batch, _, width] = vectors.dims();
        assert_eq!(prompts.len(), batch, "vectors for every prompt");
        let texts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let (rows, _) = self.tokenizer.encode_padded(&texts, self.length);
        let last = self.first + self.num_vectors as u32;
        let learned = |id: u32| (self.first..last).contains(&id);
        let flat: Vec<u32> = rows.into_iter().flatten().collect();
        let shape = [batch, self.length];
        let ints = |value: &dyn Fn(u32) -> i64| -> Tensor<B, 2, Int> {
            let values: Vec<i64> = flat.iter().map(|id| value(*id)).collect();
            Tensor::from_data(TensorData::new(values, shape), &device)
        };
        let known = ints(&|id| if learned(id) { 0 } else { i64::from(id) });
        let places = ints(&|id| {
            if learned(id) {
                i64::from(id - self.first)
            } else {
                0
            }
        });
        let is_learned: Vec<bool> = flat.iter().map(|id| learned(*id)).collect();
        let is_learned =
            Tensor::<B, 2, Bool>::from_data(TensorData::new(is_learned, shape), &device);
        let wide = [batch, self.length, width];
        let embeds = self.tower.token_embeds(known);
        let own = vectors.gather(1, places.reshape([batch, self.length, 1]).expand(wide));
        let mask = is_learned.reshape([batch, self.length, 1]).expand(wide);
        self.tower
            .forward_embeds(embeds.mask_where(mask, own), None)
    }
}

/// Textual Inversion.
pub struct TextualInversion<'a, B: AutodiffBackend> {
    config: &'a TextualInversionConfig,
    studio: &'a Studio<'a, B::InnerBackend>,
    vae: &'a AutoencoderKl<B::InnerBackend>,
    denoiser: &'a Denoiser<B>,
    training: InvertedEncoder<B>,
    drawing: InvertedEncoder<B::InnerBackend>,
    vectors: BTreeMap<String, Vec<f32>>,
    width: usize,
}

impl<'a, B: AutodiffBackend> TextualInversion<'a, B> {
    /// The method over frozen networks: the text tower where a graph is recorded, and where none is.
    ///
    /// # Errors
    /// As [`InvertedEncoder::new`].
    pub fn new(
        config: &'a TextualInversionConfig,
        studio: &'a Studio<'a, B::InnerBackend>,
        vae: &'a AutoencoderKl<B::InnerBackend>,
        denoiser: &'a Denoiser<B>,
        towers: (ClipTextModel<B>, ClipTextModel<B::InnerBackend>),
        tokenizer: &TextTokenizer,
        length: usize,
    ) -> Result<Self, MethodError> {
        let table = &towers.1.embeddings.token_embedding.weight;
        let [_, width] = table.lazy_shape().dims::<2>();
        let count = config.num_vectors;
        Ok(Self {
            config,
            studio,
            vae,
            denoiser,
            training: InvertedEncoder::new(towers.0, tokenizer, length, count)?,
            drawing: InvertedEncoder::new(towers.1, tokenizer, length, count)?,
            vectors: BTreeMap::new(),
            width,
        })
    }

    /// What was learned, `[vectors · width]` by user.
    pub fn vectors(&self) -> &BTreeMap<String, Vec<f32>> {
        &self.vectors
    }

    /// Trains the vectors of a group of users in its own folder.
    fn group(&mut self, requests: &[Request<'_>], watch: Watch<'_>) -> Result<(), MethodError> {
        let histories: Vec<Vec<usize>> = requests
            .iter()
            .map(|request| {
                let items = request.history.history.iter().copied();
                items
                    .filter(|item| !(self.studio.held_out)(*item))
                    .collect()
            })
            .collect();
        // Each picture is encoded once, whoever has it.
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut pictures: Vec<RgbImage> = Vec::new();
        for &item in histories.iter().flatten() {
            if let std::collections::hash_map::Entry::Vacant(entry) = places.entry(item) {
                entry.insert(pictures.len());
                pictures.push((self.studio.picture)(item)?);
            }
        }
        if histories.iter().any(Vec::is_empty) {
            return Err(MethodError::Empty {
                method: "Textual Inversion",
                wanted: "a user's history has no picture to learn from",
            });
        }
        let device = self.studio.drawing.device;
        let latents = Latents::encode(self.vae, &pictures, self.studio.side, device);
        let initial = self.training.initial(&self.config.initial_words);
        let count = requests.len() * self.config.num_vectors;
        let shape = [requests.len(), self.config.num_vectors, self.width];
        let data = TensorData::new(initial.repeat(count), shape);
        let module = UserVectors {
            vectors: Param::from_tensor(Tensor::<B, 3>::from_data(data, self.denoiser.device())),
        };
        let users: Vec<&str> = requests.iter().map(|r| r.sample.user.as_str()).collect();
        let words: BTreeMap<usize, &str> = places
            .keys()
            .map(|item| (*item, self.studio.words[*item].as_str()))
            .collect();
        let identity = (
            self.config,
            &users,
            &self.studio.identity,
            &histories,
            &words,
        );
        let training = &self.config.training;
        let per_user = training.batch_size;
        let module = fit::<B, _>(
            training,
            "textual inversion",
            &identity,
            module,
            device,
            watch,
            |module: &UserVectors<B>, step| {
                let mut noising = Noising::new();
                let mut rows = Vec::new();
                let mut prompts = Vec::new();
                let mut own = Vec::new();
                for (user, history) in histories.iter().enumerate() {
                    let mut random = stream(training.seed, "textual inversion", users[user], step);
                    for _ in 0..per_user {
                        let item = history[random.random_range(0..history.len())];
                        rows.push(places[&item]);
                        prompts.push(self.config.words(&self.studio.words[item]));
                        own.push(user as i32);
                        noising.draw(&mut random, self.denoiser.num_timesteps(), latents.shape());
                    }
                }
                let own = TensorData::new(own, [rows.len()]);
                let own = Tensor::<B, 1, Int>::from_data(own, self.denoiser.device());
                let vectors = module.vectors.val().select(0, own);
                let states = self.training.states(&prompts, vectors);
                let losses = self.denoiser.losses(&latents, &rows, &noising, states);
                losses.sum().div_scalar(per_user as f64)
            },
        )?;
        let values: Vec<f32> = module.vectors.val().into_data().iter::<f32>().collect();
        let size = self.config.num_vectors * self.width;
        for (user, values) in users.iter().zip(values.chunks(size)) {
            self.vectors.insert((*user).to_string(), values.to_vec());
        }
        Ok(())
    }
}

impl<B: AutodiffBackend> Method for TextualInversion<'_, B> {
    fn name(&self) -> &'static str {
        "textual-inversion"
    }

    fn label(&self) -> &'static str {
        "Textual Inversion"
    }

    fn kind(&self) -> MethodKind {
        MethodKind::Contender
    }

    fn train(&mut self, requests: &[Request<'_>], watch: Watch<'_>) -> Result<(), MethodError> {
        for group in requests.chunks(self.config.users_per_group) {
            let mut hash = Sha256::new();
            for request in group {
                hash.update(request.sample.user.as_bytes());
                hash.update([0]);
            }
            let name = format!("users-{:.12x}", hash.finalize());
            let folder = watch.folder.join(name);
            let watch = Watch {
                folder: &folder,
                ..watch
            };
            self.group(group, watch)?;
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        // A user's vectors follow from the settings and the user; whoever else was trained changes nothing.
        let settings = TextualInversionConfig {
            users_per_group: 1,
            ..self.config.clone()
        };
        let settings = serde_json::to_string(&settings).unwrap_or_default();
        let Studio {
            identity, sampler, ..
        } = self.studio;
        format!("textual-inversion {settings} {identity} {sampler}")
    }

    fn draw(&self, requests: &[Request<'_>], seed: u64) -> Vec<Result<RgbImage, DrawError>> {
        let mut results: Vec<Result<RgbImage, DrawError>> =
            requests.iter().map(|_| Err(DrawError::Untrained)).collect();
        let known: Vec<usize> = (0..requests.len())
            .filter(|place| self.vectors.contains_key(&requests[*place].sample.user))
            .collect();
        if known.is_empty() {
            return results;
        }
        let asked: Vec<Request<'_>> = known.iter().map(|place| requests[*place]).collect();
        let prompts: Vec<String> = asked
            .iter()
            .map(|request| &self.studio.words[request.sample.reference])
            .map(|words| self.config.words(words))
            .collect();
        let values: Vec<f32> = asked
            .iter()
            .flat_map(|request| self.vectors[&request.sample.user].iter().copied())
            .collect();
        let shape = [asked.len(), self.config.num_vectors, self.width];
        let vectors = Tensor::from_data(TensorData::new(values, shape), self.studio.drawing.device);
        let states = self.drawing.states(&prompts, vectors);
        let drawn = self.studio.conditionings(&asked, states, seed);
        for (place, drawn) in known.into_iter().zip(drawn) {
            results[place] = drawn;
        }
        results
    }
}
