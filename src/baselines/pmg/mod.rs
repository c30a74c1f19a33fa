//! PMG, personalised multimodal generation with large language models (Shen et al., 2024).
//!
//! Keywords stand for the explicit preference. A frozen language model with a learned prefix reads them, and its states
//! at learned soft tokens, through a linear layer, carry what words do not: that part trains on the generator's own loss,
//! re-drawing pictures that the user took. Several balances of preference and reference are drawn, and the picture with
//! the largest `α log d_p + (1 − α) log d_t` is kept.

mod model;
mod selection;

use burn::module::AutodiffModule as _;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use image::RgbImage;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::denoising::{Denoiser, Latents, Noising, stream};
use super::fitting::{FittingConfig, fit};
use super::method::{DrawError, Method, MethodError, MethodKind, Request, Watch};
use super::studio::Studio;
use crate::features::semantic::SemanticEncoder;
use crate::features::visual::VisualExtractor;
use crate::generation::preference::ConditioningShape;
use crate::generation::sample::Sample;
use crate::networks::diffusion::AutoencoderKl;
use crate::networks::llama::LlamaForCausalLm;
use crate::optimisation::parameters::{Selection, collect};

pub use model::{Prefix, SoftPreference};
pub use selection::{balance, best};

/// `[baselines.pmg]`. The paper of PMG gives neither steps nor rates for this data; the numbers are ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PmgConfig {
    /// Learned keys and values in front of every layer (P-Tuning v2).
    pub prefix_length: usize,
    /// Soft tokens; they take the places of the conditioning's last ones.
    pub num_soft_tokens: usize,
    /// α: how much closeness to the preference counts against closeness to the reference.
    pub alpha: f64,
    /// The balances drawn, each from 0 (the reference's words alone) to 1 (the whole preference).
    pub balances: Vec<f64>,
    /// Items of each training user's history that are re-drawn.
    pub items_per_user: usize,
    /// How it trains.
    pub training: FittingConfig,
}

impl Default for PmgConfig {
    fn default() -> Self {
        Self {
            prefix_length: 8,
            num_soft_tokens: 4,
            alpha: 0.5,
            balances: vec![0.5, 0.75, 1.0],
            items_per_user: 4,
            training: FittingConfig::default(),
        }
    }
}

impl PmgConfig {
    /// Refuses values without a meaning, with the reason.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.prefix_length == 0 || self.num_soft_tokens == 0 || self.items_per_user == 0 {
            return Err(
                "prefix_length, num_soft_tokens and items_per_user must be at least 1".into(),
            );
        }
        if !(0.0..=1.0).contains(&self.alpha) {
            return Err(format!("alpha = {} must lie in [0, 1]", self.alpha));
        }
        let inside = self
            .balances
            .iter()
            .all(|value| (0.0..=1.0).contains(value));
        if self.balances.is_empty() || !inside {
            return Err("balances must be numbers in [0, 1], at least one".into());
        }
        self.training
            .validate()
            .map_err(|error| format!("training.{error}"))
    }
}

/// Networks that PMG works over.
pub struct PmgNetworks<'a, B: AutodiffBackend> {
    /// The frozen language model where a graph is recorded.
    pub training_llama: LlamaForCausalLm<B>,
    /// The same where none is.
    pub llama: &'a LlamaForCausalLm<B::InnerBackend>,
    /// The frozen autoencoder.
    pub vae: &'a AutoencoderKl<B::InnerBackend>,
    /// The frozen denoising network where a graph is recorded.
    pub denoiser: &'a Denoiser<B>,
    /// Texts into CLIP's space.
    pub semantic: SemanticEncoder<'a, B::InnerBackend>,
    /// Pictures into CLIP's space.
    pub visual: VisualExtractor<'a, B::InnerBackend>,
    /// What the generator wants of a conditioning.
    pub shape: ConditioningShape,
}

/// PMG.
pub struct Pmg<'a, B: AutodiffBackend> {
    config: &'a PmgConfig,
    studio: &'a Studio<'a, B::InnerBackend>,
    networks: PmgNetworks<'a, B>,
    /// Each a user, and an item of the history in the reference's place.
    examples: &'a [Sample],
    model: Option<SoftPreference<B::InnerBackend>>,
    digest: String,
}

impl<'a, B: AutodiffBackend> Pmg<'a, B> {
    /// The method; `examples` are samples whose reference is an item that the user took, the rest of the history being
    /// the history.
    ///
    /// # Errors
    /// More soft tokens than the conditioning has.
    pub fn new(
        config: &'a PmgConfig,
        studio: &'a Studio<'a, B::InnerBackend>,
        networks: PmgNetworks<'a, B>,
        examples: &'a [Sample],
    ) -> Result<Self, MethodError> {
        if config.num_soft_tokens >= networks.shape.tokens {
            return Err(MethodError::Setting {
                key: "pmg.num_soft_tokens",
                value: config.num_soft_tokens.to_string(),
                reason: format!("a conditioning has {} tokens", networks.shape.tokens),
            });
        }
        Ok(Self {
            config,
            studio,
            networks,
            examples,
            model: None,
            digest: String::new(),
        })
    }

    fn fitted(&self, watch: Watch<'_>) -> Result<SoftPreference<B>, MethodError> {
        if self.examples.is_empty() {
            return Err(MethodError::Empty {
                method: "PMG",
                wanted: "histories.jsonl has no line with split \"train\"",
            });
        }
        let training = &self.config.training;
        let device = self.studio.drawing.device;
        let pictures = self
            .examples
            .iter()
            .map(|example| (self.studio.picture)(example.reference))
            .collect::<Result<Vec<RgbImage>, _>>()?;
        let latents = Latents::encode(self.networks.vae, &pictures, self.studio.side, device);
        let llama = &self.networks.training_llama;
        let module = SoftPreference::new(
            llama,
            self.config.prefix_length,
            self.config.num_soft_tokens,
            self.networks.shape.width,
            training.seed,
        );
        let users: Vec<[&str; 4]> = self
            .examples
            .iter()
            .map(|example| {
                let Sample {
                    user, reference_id, ..
                } = example;
                let (prompt, taste) = (&example.history_prompt, &example.preference_prompt);
                [user, reference_id, prompt, taste].map(String::as_str)
            })
            .collect();
        let identity = (self.config, &users, &self.studio.identity);
        fit::<B, _>(
            training,
            "PMG",
            &identity,
            module,
            device,
            watch,
            |module: &SoftPreference<B>, step| {
                let places = batch(training, self.examples.len(), step);
                let examples: Vec<&Sample> = places.iter().map(|at| &self.examples[*at]).collect();
                let mut noising = Noising::new();
                for (row, example) in examples.iter().enumerate() {
                    let purpose = format!("PMG {row} {}", example.reference_id);
                    let mut random = stream(training.seed, &purpose, &example.user, step);
                    let steps = self.networks.denoiser.num_timesteps();
                    noising.draw(&mut random, steps, latents.shape());
                }
                let prompts: Vec<&str> =
                    examples.iter().map(|e| e.history_prompt.as_str()).collect();
                let global = self.studio.drawing.text.encode(&prompts).states;
                let ids: Vec<Vec<u32>> =
                    examples.iter().map(|e| e.preference_ids.clone()).collect();
                let states = module.forward(llama, &ids, Tensor::from_inner(global));
                let denoiser = self.networks.denoiser;
                denoiser.losses(&latents, &places, &noising, states).mean()
            },
        )
    }
}

/// The examples of step `step`: each epoch a permutation of all, drawn from the seed and the epoch.
fn batch(training: &FittingConfig, count: usize, step: usize) -> Vec<usize> {
    let first = step * training.batch_size;
    (first..first + training.batch_size)
        .map(|place| {
            let mut random = ChaCha8Rng::seed_from_u64(training.seed);
            random.set_stream((place / count) as u64);
            let mut order: Vec<usize> = (0..count).collect();
            order.shuffle(&mut random);
            order[place % count]
        })
        .collect()
}

impl<B: AutodiffBackend> Method for Pmg<'_, B> {
    fn name(&self) -> &'static str {
        "pmg"
    }

    fn label(&self) -> &'static str {
        "PMG"
    }

    fn kind(&self) -> MethodKind {
        MethodKind::Contender
    }

    fn train(&mut self, _: &[Request<'_>], watch: Watch<'_>) -> Result<(), MethodError> {
        let model = self.fitted(watch)?.valid();
        let mut hash = Sha256::new();
        for (name, data) in collect::<B::InnerBackend, _>(&model, Selection::All) {
            hash.update(name.as_bytes());
            hash.update(data.as_bytes());
        }
        self.digest = format!("{:x}", hash.finalize());
        self.model = Some(model);
        Ok(())
    }

    fn fingerprint(&self) -> String {
        let drawn = (self.config.alpha, &self.config.balances);
        let drawn = serde_json::to_string(&drawn).unwrap_or_default();
        let judge = self.networks.semantic.fingerprint;
        let Studio {
            identity, sampler, ..
        } = self.studio;
        format!("pmg {} {drawn} {judge} {identity} {sampler}", self.digest)
    }

    fn draw(&self, requests: &[Request<'_>], seed: u64) -> Vec<Result<RgbImage, DrawError>> {
        let Some(model) = &self.model else {
            return requests.iter().map(|_| Err(DrawError::Untrained)).collect();
        };
        if requests.is_empty() {
            return Vec::new();
        }
        let samples: Vec<&Sample> = requests.iter().map(|request| request.sample).collect();
        let texts: Vec<&str> = samples
            .iter()
            .map(|sample| self.studio.catalogue[sample.reference].text.as_str())
            .collect();
        let prompts: Vec<&str> = samples.iter().map(|s| s.history_prompt.as_str()).collect();
        let ids: Vec<Vec<u32>> = samples.iter().map(|s| s.preference_ids.clone()).collect();
        let text = self.studio.drawing.text;
        let whole = model.forward(self.networks.llama, &ids, text.encode(&prompts).states);
        let words: Vec<&str> = samples
            .iter()
            .map(|sample| self.studio.words[sample.reference].as_str())
            .collect();
        let reference = text.encode(&words).states;

        let tastes: Vec<&str> = samples.iter().map(|s| s.summary.as_str()).collect();
        let tastes = self.networks.semantic.encode(&tastes);
        let references = self.networks.semantic.encode(&texts);
        let mut candidates: Vec<Vec<Result<RgbImage, DrawError>>> =
            requests.iter().map(|_| Vec::new()).collect();
        for &weight in &self.config.balances {
            let conditioning = balance(reference.clone(), whole.clone(), weight);
            let drawn = self.studio.unchosen(requests, conditioning, seed);
            for (candidates, drawn) in candidates.iter_mut().zip(drawn) {
                candidates.push(drawn);
            }
        }
        candidates
            .into_iter()
            .enumerate()
            .map(|(place, candidates)| {
                // One balance that cannot be drawn spoils the choice: it is reported, not passed over.
                let pictures = candidates.into_iter().collect::<Result<Vec<_>, _>>()?;
                let embedded = self
                    .networks
                    .visual
                    .encode(&pictures.iter().collect::<Vec<_>>());
                let chosen = best(
                    &embedded,
                    &tastes[place],
                    &references[place],
                    self.config.alpha,
                );
                pictures.into_iter().nth(chosen).ok_or(DrawError::NotFinite)
            })
            .collect()
    }
}
