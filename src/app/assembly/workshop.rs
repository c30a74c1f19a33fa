//! What training, drawing for users and the studies share, opened once.

use super::{DataSet, Eyes, Generation, Language, Ranking, features, samples};
use crate::app::backend::Devices;
use crate::app::config::RunConfig;
use crate::app::failure::Usage;
use crate::app::output::Output;
use crate::app::session::Session;
use crate::data::history::History;
use crate::generation::sample::Sample;
use crate::optimisation::Progress;
use crate::preparation::ItemFeatures;

/// Data, frozen networks and the judge.
pub struct Workshop {
    /// Where it all lives.
    pub devices: Devices,
    /// Items, users, and the truth where it is known.
    pub data: DataSet,
    /// CLIP.
    pub eyes: Eyes,
    /// The generator.
    pub generation: Generation,
    /// The language model, without a graph: training records one over the same weights.
    pub language: Language,
    /// The judge of ranks.
    pub ranking: Ranking,
}

impl Workshop {
    /// Opens what `config` names.
    ///
    /// # Errors
    /// The first folder that is missing or does not fit; samplers that cannot draw as configured.
    pub fn open(session: &Session, config: &RunConfig) -> anyhow::Result<Self> {
        let devices = session.devices()?;
        let data = DataSet::open(&config.data, session.output)?;
        let frozen = &devices.frozen;
        let eyes = Eyes::open(&config.models, frozen)?;
        let generation = Generation::open(&config.models, frozen)?;
        can_draw(config, &generation)?;
        let language = Language::open(&config.models, frozen)?;
        let watcher = session.output.watcher();
        let place = &config.models.ranking;
        let ranking = Ranking::open(config, &data, &eyes, place, frozen, &watcher)?;
        Ok(Self {
            devices,
            data,
            eyes,
            generation,
            language,
            ranking,
        })
    }

    /// What the frozen networks say of all pictures, and of the words of the items of `histories`.
    ///
    /// # Errors
    /// A network that cannot be loaded, a picture that cannot be used, a full disk.
    pub fn prepare<'h>(
        &self,
        config: &RunConfig,
        histories: impl IntoIterator<Item = &'h History>,
        progress: &dyn Progress,
    ) -> anyhow::Result<ItemFeatures> {
        let histories: Vec<&History> = histories.into_iter().collect();
        features::prepare(
            config,
            &self.data,
            &self.eyes,
            &self.language,
            &samples::items_of(&histories),
            &self.devices.frozen,
            progress,
        )
    }

    /// A sample for each history whose reference the ranking model can judge: one that it never saw has no rank.
    ///
    /// # Errors
    /// The first history that gives no sample, where `data.skip_bad` is not set.
    pub fn samples<'h>(
        &self,
        config: &RunConfig,
        items: &ItemFeatures,
        histories: &[&'h History],
        output: Output,
    ) -> anyhow::Result<Vec<(&'h History, Sample)>> {
        let row = |user: &str| self.ranking.user(user);
        let (data, language) = (&self.data, &self.language);
        let mut samples = samples::samples(config, data, language, items, row, histories, output)?;
        samples.retain(|(_, sample)| self.ranking.discriminator.covers(sample.reference));
        Ok(samples)
    }
}

/// Whether the generator's samplers can draw as `config` says, in training and after it: asked before anything is computed.
///
/// # Errors
/// Which section is refused, and why.
pub fn can_draw(config: &RunConfig, generation: &Generation) -> Result<(), Usage> {
    let sections = [
        ("inference", config.inference.options()),
        ("reflection", config.reflection.options()),
    ];
    for (section, options) in sections {
        let drawn = generation.generator.check(&options);
        drawn.map_err(|error| Usage(format!("{section}: {error}")))?;
    }
    Ok(())
}
