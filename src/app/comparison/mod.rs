//! Methods against each other: the same users, generator, seeds and judges. Everything drawn is kept on disk, so a
//! stopped comparison goes on where it stopped and a longer one draws only what is new.

mod answers;
mod gallery;
mod judging;
mod methods;
mod pictures;
mod results;
mod write;

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use burn::module::Module as _;
use image::RgbImage;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::app::assembly::choice::{choice, chooser};
use crate::app::assembly::{
    DataSet, Eyes, Generation, Language, Ranking, features, preference, samples,
};
use crate::app::backend::{Backend, Devices};
use crate::app::config::{Resampled, RunConfig};
use crate::app::exhibition::Visitor;
use crate::app::failure::Interrupted;
use crate::app::output::Output;
use crate::app::session::Session;
use crate::baselines::answer::Answer;
use crate::baselines::denoising::Denoiser;
use crate::baselines::floors::{Choice, Floor};
use crate::baselines::pmg::{Pmg, PmgNetworks};
use crate::baselines::stable_diffusion::{StableDiffusion, Words};
use crate::baselines::textual_inversion::TextualInversion;
use crate::baselines::{Method, MethodError, MethodKind, Request, Studio, Watch};
use crate::data::history::{History, Split};
use crate::generation::drawing::Drawing;
use crate::generation::generator::GenerateOptions;
use crate::generation::sample::Sample;
use crate::optimisation::{Interrupt, Progress};
use crate::preparation::ItemFeatures;
use crate::pretrained::diffusion::PretrainedDiffusion;
use crate::pretrained::{diffusion, hub};

pub use gallery::panels;
pub use judging::{Judges, Shown, Tally};
pub use methods::MethodName;
use methods::Ragar;
use pictures::PictureCache;
pub use results::{Failure, MethodResult, Results};
pub use write::write;

/// Everything that methods and judges need, loaded.
pub struct Comparison {
    /// Settings.
    pub config: RunConfig,
    /// Items, users, and the truth where it is known.
    pub data: DataSet,
    /// CLIP.
    pub eyes: Eyes,
    /// The judge of ranks, where `models.ranking` holds one.
    pub ranking: Option<Ranking>,
    /// What the frozen networks say of items.
    pub items: ItemFeatures,
    /// Where it all lives.
    pub devices: Devices,
    generation: Generation,
    language: Language,
    /// Users to draw for.
    users: Vec<History>,
    /// What PMG learns from: a user, and an item of the history in the reference's place.
    lessons: Vec<History>,
    output: Output,
}

/// Where a comparison reads and writes.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    /// Where `ragar train` left RAGAR.
    pub run: &'a Path,
    /// Pictures and trained methods.
    pub out: &'a Path,
    /// Ends the work after what is being done.
    pub interrupt: &'a Interrupt,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// The pictures of some users: users, then seeds.
pub type Drawn = Vec<Vec<Result<RgbImage, String>>>;

/// Pictures that a method drew for some users. Not all of them stand in memory at once.
pub struct Batch<'a> {
    /// Who drew.
    pub method: &'a dyn Method,
    /// The first of the users.
    pub first: usize,
    /// Their pictures.
    pub drawn: Drawn,
}

/// Where the drawings of a method lie.
pub struct Kept {
    /// The method's name in tables.
    pub label: String,
    cache: PictureCache,
}

impl Comparison {
    /// Loads networks and data, and prepares the test users for `methods`.
    ///
    /// # Errors
    /// A network that cannot be loaded, data without test users, a full disk.
    pub fn open(
        session: &Session,
        config: RunConfig,
        methods: &[MethodName],
        progress: &dyn Progress,
    ) -> anyhow::Result<Self> {
        let devices = session.devices()?;
        let frozen = &devices.frozen;
        let output = session.output;
        let data = DataSet::open(&config.data, output)?;
        let eyes = Eyes::open(&config.models, frozen)?;
        let generation = Generation::open(&config.models, frozen)?;
        let language = Language::open(&config.models, frozen)?;
        let place = &config.models.ranking;
        let ranking = if place.exists() {
            Some(Ranking::open(
                &config, &data, &eyes, place, frozen, progress,
            )?)
        } else {
            Ranking::needed_to_choose(&config)?;
            let place = place.display();
            output.note(format!(
                "ΔR is left out: models.ranking = \"{place}\" is not there"
            ));
            None
        };
        let found = data.users(Split::Test, config.evaluation.users);
        anyhow::ensure!(
            !found.is_empty(),
            "histories.jsonl of {} has no user of split \"test\" to evaluate on",
            config.data.folder.display()
        );
        let known = |history: &&&History| {
            let ranking = ranking.as_ref();
            ranking.is_none_or(|ranking| ranking.discriminator.covers(history.reference))
        };
        let users: Vec<History> = found.iter().filter(known).map(|h| (*h).clone()).collect();
        if users.len() < found.len() {
            output.note(format!(
                "{} users left out: the ranking model does not know their reference",
                found.len() - users.len()
            ));
        }
        anyhow::ensure!(
            !users.is_empty(),
            "no test user is left: the ranking model in {} knows none of their references",
            place.display()
        );
        let lessons = match methods.contains(&MethodName::Pmg) {
            true => lessons(&config, &data),
            false => Vec::new(),
        };
        let everyone: Vec<&History> = users.iter().chain(&lessons).collect();
        let words = samples::items_of(&everyone);
        let items = features::prepare(&config, &data, &eyes, &language, &words, frozen, progress)?;
        Ok(Self {
            config,
            data,
            eyes,
            ranking,
            items,
            devices,
            generation,
            language,
            users,
            lessons,
            output,
        })
    }

    /// The users to draw for.
    ///
    /// # Errors
    /// A history that gives no sample; with `data.skip_bad` it is left out with a note.
    pub fn visitors(&self) -> anyhow::Result<Vec<Visitor<'_>>> {
        let histories: Vec<&History> = self.users.iter().collect();
        // Without a ranking model nobody is ranked, and any row will do.
        let row = |user: &str| match &self.ranking {
            Some(ranking) => ranking.user(user),
            None => Some(0),
        };
        let samples = self.samples(&histories, row)?;
        let visitors = samples.into_iter();
        Ok(visitors
            .map(|(history, sample)| Visitor { history, sample })
            .collect())
    }

    fn samples<'h>(
        &self,
        histories: &[&'h History],
        row: impl Fn(&str) -> Option<usize>,
    ) -> anyhow::Result<Vec<(&'h History, Sample)>> {
        samples::samples(
            &self.config,
            &self.data,
            &self.language,
            &self.items,
            row,
            histories,
            self.output,
        )
    }

    /// The seeds drawn from.
    pub fn seeds(&self) -> Vec<u64> {
        let first = self.config.inference.seed;
        (first..first + self.config.evaluation.seeds).collect()
    }

    /// The visitors that intervals take together, by `evaluation.resampled`: equal numbers.
    pub fn groups(&self, visitors: &[Visitor<'_>]) -> Vec<usize> {
        let shared = |visitor: &Visitor<'_>| {
            let reference = visitor.sample.reference;
            match self.data.stickers() {
                Some(stickers) => stickers.stickers[reference].glyph.as_str(),
                None => self.data.folder().catalogue[reference].id.as_str(),
            }
        };
        match self.config.evaluation.resampled {
            Resampled::Users => (0..visitors.len()).collect(),
            Resampled::References => {
                let mut numbers = HashMap::new();
                let visitors = visitors.iter();
                visitors
                    .map(|visitor| {
                        let next = numbers.len();
                        *numbers.entry(shared(visitor)).or_insert(next)
                    })
                    .collect()
            }
        }
    }

    /// Readies each of `names` in turn and hands its pictures for `visitors` to `work`, batch by batch. Says where those
    /// that were drawn lie.
    ///
    /// # Errors
    /// A method that cannot be made ready, an interruption, a full disk, what `work` says.
    pub fn each_method(
        &self,
        names: &[MethodName],
        visitors: &[Visitor<'_>],
        places: Places<'_>,
        mut work: impl FnMut(Batch<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        let through = names.iter().any(|name| name.trains_through_generator());
        let trained = match through {
            true => Some(self.generator_with_graph()?),
            false => None,
        };
        let text = self.generation.text(&self.eyes);
        let inference = &self.config.inference;
        let options = inference.options();
        let samples = visitors.iter().map(|visitor| &visitor.sample);
        let references = self
            .generation
            .references(&self.data, samples, inference.strength)?;
        let visual = self.eyes.encoder();
        let ranking = self.ranking.as_ref();
        let chooser = ranking.map(|ranking| chooser(inference, &visual, ranking));
        let choice = chooser.as_ref().and_then(|own| choice(inference, own));
        let held_out = |item: usize| self.data.is_held_out(item);
        let picture = |item: usize| self.data.picture(item);
        let catalogue = &self.data.folder().catalogue;
        let preparation = &self.config.preparation;
        let words: Vec<String> = catalogue
            .iter()
            .map(|item| preparation.words(&item.text))
            .collect();
        let studio = Studio {
            drawing: Drawing {
                generator: &self.generation.generator,
                text: &text,
                options: &options,
                references: references.as_ref(),
                latent_shape: self.generation.latent_shape,
                images_per_batch: inference.images_per_batch,
                choice,
                seed: inference.seed,
                device: &self.devices.frozen,
            },
            identity: self.generation.fingerprint.clone(),
            sampler: self.sampler(&options)?,
            catalogue,
            words: &words,
            captions: &self.items.captions,
            visual: &self.items.visual,
            held_out: &held_out,
            picture: &picture,
            side: trained.as_ref().map_or(0, |parts| {
                parts.latent_size() * parts.vae_config.downsampling()
            }),
        };
        let denoiser = match &trained {
            Some(parts) => Some(Denoiser::new(
                parts.unet.clone(),
                &parts.scheduler,
                &self.devices.train,
            )?),
            None => None,
        };
        let language = match names.iter().any(|name| name.trains_language()) {
            true => Some(Language::open(&self.config.models, &self.devices.train)?),
            false => None,
        };
        let histories: Vec<&History> = self.lessons.iter().collect();
        let lessons: Vec<Sample> = match names.contains(&MethodName::Pmg) {
            true => self.samples(&histories, |_| Some(0))?,
            false => Vec::new(),
        }
        .into_iter()
        .map(|(_, sample)| sample)
        .collect();
        let requests: Vec<Request<'_>> = visitors
            .iter()
            .map(|visitor| Request {
                history: visitor.history,
                sample: &visitor.sample,
            })
            .collect();

        for &name in names {
            let missing = || format!("{name:?} needs a network that was not loaded");
            let mut method: Box<dyn Method + '_> = match name {
                MethodName::Reference | MethodName::History | MethodName::Neighbour => {
                    Box::new(Floor {
                        studio: &studio,
                        choice: match name {
                            MethodName::Reference => Choice::Reference,
                            MethodName::History => Choice::History,
                            _ => Choice::Neighbour,
                        },
                    })
                }
                MethodName::Answer => {
                    let answers = self.answers()?;
                    self.note_alike(&answers, visitors);
                    Box::new(Answer::new(&studio, answers))
                }
                MethodName::Keywords | MethodName::Sd => Box::new(StableDiffusion {
                    studio: &studio,
                    words: match name {
                        MethodName::Keywords => Words::Keywords,
                        _ => Words::CaptionAndKeywords,
                    },
                }),
                MethodName::TextualInversion => {
                    let trained = trained.as_ref().with_context(missing)?;
                    Box::new(TextualInversion::<Backend>::new(
                        &self.config.baselines.textual_inversion,
                        &studio,
                        self.generation.generator.vae(),
                        denoiser.as_ref().with_context(missing)?,
                        (
                            trained.text_encoder.network.clone(),
                            self.generation.prompts.network.clone(),
                        ),
                        &self.generation.prompts.tokenizer,
                        self.generation.shape().tokens,
                    )?)
                }
                MethodName::Pmg => {
                    let language = language.as_ref().with_context(missing)?;
                    let networks = PmgNetworks {
                        training_llama: language.model.clone().no_grad(),
                        llama: &self.language.model,
                        vae: self.generation.generator.vae(),
                        denoiser: denoiser.as_ref().with_context(missing)?,
                        semantic: self.eyes.semantic(),
                        visual: self.eyes.visual(),
                        shape: self.generation.shape(),
                    };
                    let config = &self.config.baselines.pmg;
                    Box::new(Pmg::<Backend>::new(config, &studio, networks, &lessons)?)
                }
                MethodName::Ragar => {
                    let language = language.as_ref().with_context(missing)?;
                    let device = &self.devices.train;
                    let model = preference::open(
                        &self.config,
                        places.run,
                        language,
                        &self.generation,
                        device,
                    )?;
                    // What `ragar train` leaves, in one file or with the adapter apart.
                    let mut hash = Sha256::new();
                    for name in [
                        "preference.safetensors",
                        "adapter/adapter_model.safetensors",
                    ] {
                        let weights = places.run.join(name);
                        if weights.is_file() {
                            let bytes = std::fs::read(&weights)
                                .with_context(|| format!("cannot read {}", weights.display()))?;
                            hash.update(Sha256::digest(&bytes));
                        }
                    }
                    let digest = hash.finalize();
                    Box::new(Ragar {
                        studio: &studio,
                        model,
                        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
                    })
                }
            };
            let folder = places.out.join("methods").join(method.name());
            let watch = Watch {
                folder: &folder,
                interrupt: places.interrupt,
                progress: places.progress,
            };
            method
                .train(&requests, watch)
                .map_err(|error| match error {
                    MethodError::Interrupted { step } => Interrupted::after(step).into(),
                    other => anyhow::Error::from(other).context(method.label()),
                })?;
            kept.extend(self.draw(method.as_ref(), &requests, places, &mut work)?);
        }
        Ok(kept)
    }

    /// How it is drawn, in words.
    fn sampler(&self, options: &GenerateOptions) -> anyhow::Result<String> {
        // Half precision draws otherwise.
        let dtype = serde_json::to_string(&self.config.models.dtype)?;
        let drawn = format!("{} {dtype}", serde_json::to_string(options)?);
        let inference = &self.config.inference;
        Ok(match inference.candidates {
            1 => drawn,
            count => {
                let judge = Ranking::fingerprint(&self.config.models.ranking)?;
                format!("{drawn} best of {count} {} {judge}", inference.likeness)
            }
        })
    }

    /// The picture of the first seed that a method drew for a user, where there is one.
    pub fn kept(&self, kept: &Kept, visitor: &Visitor<'_>) -> Option<RgbImage> {
        let request = Request {
            history: visitor.history,
            sample: &visitor.sample,
        };
        let seed = self.config.inference.seed;
        kept.cache.get(&request, &self.words(&request), seed)
    }

    /// Whatever decides a picture beside method, user, reference and seed.
    fn words(&self, request: &Request<'_>) -> String {
        let sample = request.sample;
        let catalogue = &self.data.folder().catalogue;
        let told = |item: usize| self.config.preparation.words(&catalogue[item].text);
        let history = &request.history.history;
        json!([
            sample.keywords,
            sample.summary,
            sample.preference_prompt,
            sample.global_prompt,
            sample.history_prompt,
            self.items.captions[sample.reference],
            catalogue[sample.reference].text,
            told(sample.reference),
            history,
            history.iter().map(|item| told(*item)).collect::<Vec<_>>(),
        ])
        .to_string()
    }

    /// The pictures of one method, from the disk or drawn now, handed to `work` some users at a time.
    fn draw(
        &self,
        method: &dyn Method,
        requests: &[Request<'_>],
        places: Places<'_>,
        work: &mut impl FnMut(Batch<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Kept>> {
        let root = places.out.join("images");
        let cache = PictureCache::new(&root, method.name(), &method.fingerprint());
        let keep = method.kind() != MethodKind::Floor;
        let seeds = self.seeds();
        let name = format!("drawing: {}", method.label());
        places.progress.begin(&name, requests.len());
        let at_once = self.config.inference.images_per_batch;
        for (number, batch) in requests.chunks(at_once).enumerate() {
            let mut drawn: Drawn = vec![Vec::with_capacity(seeds.len()); batch.len()];
            for &seed in &seeds {
                let pictures = self.batch(method, batch, seed, keep.then_some(&cache))?;
                for (row, picture) in drawn.iter_mut().zip(pictures) {
                    row.push(picture);
                }
                if places.interrupt.is_raised() {
                    places.progress.end();
                    let text =
                        "interrupted, all pictures kept: run the same command again to go on";
                    return Err(Interrupted(text.into()).into());
                }
            }
            let first = number * at_once;
            work(Batch {
                method,
                first,
                drawn,
            })?;
            places.progress.advance(first + batch.len(), "");
        }
        places.progress.end();
        Ok(keep.then(|| Kept {
            label: method.label().to_string(),
            cache,
        }))
    }

    /// A picture per request, those of `cache` first.
    fn batch(
        &self,
        method: &dyn Method,
        batch: &[Request<'_>],
        seed: u64,
        cache: Option<&PictureCache>,
    ) -> anyhow::Result<Vec<Result<RgbImage, String>>> {
        let mut found: Vec<Option<Result<RgbImage, String>>> = batch
            .iter()
            .map(|request| cache?.get(request, &self.words(request), seed).map(Ok))
            .collect();
        let missing: Vec<usize> = (0..batch.len()).filter(|at| found[*at].is_none()).collect();
        let asked: Vec<Request<'_>> = missing.iter().map(|at| batch[*at]).collect();
        for (at, drawn) in missing.into_iter().zip(method.draw(&asked, seed)) {
            if let (Ok(picture), Some(cache)) = (&drawn, cache) {
                cache.put(&batch[at], &self.words(&batch[at]), seed, picture)?;
            }
            found[at] = Some(drawn.map_err(|error| error.to_string()));
        }
        let none = || Err("the method returned no picture".to_string());
        Ok(found
            .into_iter()
            .map(|found| found.unwrap_or_else(none))
            .collect())
    }

    fn generator_with_graph(&self) -> anyhow::Result<PretrainedDiffusion<Backend>> {
        let folder = hub::located(&self.config.models.generator);
        diffusion::open::<Backend>(&folder, &self.devices.train)
            .with_context(|| format!("models.generator = \"{}\"", folder.display()))
    }
}

/// Items that training users took, each in the reference's place of a history without it; never a held-out one.
fn lessons(config: &RunConfig, data: &DataSet) -> Vec<History> {
    let pmg = &config.baselines.pmg;
    let mut lessons = Vec::new();
    for (number, history) in data
        .users(Split::Train, config.data.train_users)
        .iter()
        .enumerate()
    {
        let mut random = ChaCha8Rng::seed_from_u64(pmg.training.seed);
        random.set_stream(number as u64);
        let mut places: Vec<usize> = (0..history.history.len())
            .filter(|place| !data.is_held_out(history.history[*place]))
            .collect();
        places.shuffle(&mut random);
        for place in places.into_iter().take(pmg.items_per_user) {
            let mut rest = history.history.clone();
            let reference = rest.remove(place);
            if rest.len() < config.preparation.min_history {
                continue;
            }
            lessons.push(History {
                user: history.user.clone(),
                history: rest,
                reference,
                target: None,
                split: Some(Split::Train),
            });
        }
    }
    lessons
}
