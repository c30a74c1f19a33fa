//! Methods against each other: the same users, generator, seeds and judges. Everything drawn is kept on disk, so a
//! stopped comparison goes on where it stopped and a longer one draws only what is new.

mod answers;
mod drawn;
mod gallery;
mod judging;
mod lessons;
mod methods;
mod pictures;
mod ready;
mod results;
mod write;

use std::collections::HashMap;
use std::path::Path;

use crate::app::assembly::choice::{choice, chooser};
use crate::app::assembly::{DataSet, Eyes, Generation, Language, Ranking, features, samples};
use crate::app::backend::Devices;
use crate::app::config::{Resampled, RunConfig};
use crate::app::exhibition::Visitor;
use crate::app::failure::Interrupted;
use crate::app::output::Output;
use crate::app::session::Session;
use crate::baselines::{MethodError, Request, Studio, Watch};
use crate::data::history::{History, Split};
use crate::generation::drawing::Drawing;
use crate::generation::generator::GenerateOptions;
use crate::generation::sample::Sample;
use crate::optimisation::{Interrupt, Progress};
use crate::preparation::ItemFeatures;

pub use drawn::{Batch, Drawn, Kept};
pub use gallery::panels;
pub use judging::{Judges, Shown, Tally};
pub use methods::MethodName;
use ready::{Through, Workbench};
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
            true => lessons::lessons(&config, &data),
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
        let through = Through::open(self, names)?;
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
            side: through.as_ref().map_or(0, Through::side),
        };
        let workbench = Workbench::open(self, &studio, through, names, places.run)?;
        let requests: Vec<Request<'_>> = visitors
            .iter()
            .map(|visitor| Request {
                history: visitor.history,
                sample: &visitor.sample,
            })
            .collect();

        for &name in names {
            let mut method = workbench.ready(name, visitors)?;
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
}
