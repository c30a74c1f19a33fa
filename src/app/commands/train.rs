//! `ragar train`: the preference model, by reflection.

use std::path::Path;

use serde::Serialize;

use crate::app::assembly::{
    DataSet, Eyes, Generation, Language, Ranking, features, preference, samples,
};
use crate::app::backend::{Backend, Devices};
use crate::app::config::{METHOD, RunConfig};
use crate::app::exhibition::{HeldOut, Visitor};
use crate::app::failure::{Interrupted, Usage};
use crate::app::output::Output;
use crate::app::session::Session;
use crate::data::history::{History, Split};
use crate::generation::generator::Generator;
use crate::generation::preference::PreferenceModel;
use crate::generation::sample::Sample;
use crate::networks::clip::Clip;
use crate::optimisation::{Interrupt, Progress};
use crate::reflection::RewardGradient;
use crate::reflection::direct::Differentiable;
use crate::reflection::discriminator::ClipVisualEncoder;
use crate::reflection::rollout::Frozen;
use crate::training::preference::{Outcome, PreferenceTraining};

#[derive(Serialize)]
struct Report<'a> {
    folder: &'a Path,
    users: usize,
    steps: usize,
    seconds: f64,
}

/// Trains in `out`, from its newest checkpoint on; with `accept_changes`, also from one of another configuration.
pub fn run(session: &Session, out: &Path, accept_changes: bool) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let config = &session.config;
    let devices = session.devices()?;
    let data = DataSet::open(&config.data, session.output)?;
    let watcher = session.output.watcher();
    let interrupt = Interrupt::install();
    let frozen = &devices.frozen;
    let eyes = Eyes::open(&config.models, frozen)?;
    let generation = Generation::open(&config.models, frozen)?;
    can_draw(config, &generation)?;
    let language = Language::open(&config.models, frozen)?;
    let ranking = &config.models.ranking;
    let ranking = Ranking::open(config, &data, &eyes, ranking, frozen, &watcher)?;
    config.save(out, "train", METHOD)?;

    let histories = data.users(Split::Train, config.data.train_users);
    let watched = match config.training.validation.every {
        0 => Vec::new(),
        _ => data.users(Split::Validation, config.training.validation.users),
    };
    let everyone: Vec<_> = histories.iter().chain(&watched).copied().collect();
    let words = samples::items_of(&everyone);
    let items = features::prepare(config, &data, &eyes, &language, &words, frozen, &watcher)?;
    let gather = |histories: &[_]| {
        let row = |user: &str| ranking.user(user);
        samples::samples(
            config,
            &data,
            &language,
            &items,
            row,
            histories,
            session.output,
        )
    };
    let samples = trainable(gather(&histories)?, &ranking, session.output);
    let watched: Vec<Visitor<'_>> = gather(&watched)?
        .into_iter()
        .filter(|(_, sample)| ranking.discriminator.covers(sample.reference))
        .map(|(history, sample)| Visitor { history, sample })
        .collect();
    let held_out = match watched.is_empty() {
        true => None,
        false => Some(HeldOut::new(
            config,
            &data,
            &eyes,
            &generation,
            &ranking,
            &items,
            &devices,
            watched,
            &out.join("validation"),
            &watcher,
        )?),
    };
    let parts = Parts {
        config,
        eyes: &eyes,
        language: &language,
        data: &data,
        generation: &generation,
        ranking: &ranking,
        devices: &devices,
        held_out: held_out.as_ref(),
        accept_changes,
    };
    parts.train(&samples, out, &interrupt, &watcher)?;
    let report = Report {
        folder: out,
        users: samples.len(),
        steps: config.training.steps,
        seconds: started.elapsed().as_secs_f64(),
    };
    let text = format!(
        "{}: trained for {} steps on {} users",
        out.display(),
        report.steps,
        report.users
    );
    session.output.result(text, &report)
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

/// Samples whose reference the ranking model can judge: a reference that it never saw has no rank.
pub fn trainable(
    samples: Vec<(&History, Sample)>,
    ranking: &Ranking,
    output: Output,
) -> Vec<Sample> {
    let count = samples.len();
    let kept: Vec<Sample> = samples
        .into_iter()
        .map(|(_, sample)| sample)
        .filter(|sample| ranking.discriminator.covers(sample.reference))
        .collect();
    if kept.len() < count {
        output.note(format!(
            "{} users left out: the ranking model does not know their reference",
            count - kept.len()
        ));
    }
    kept
}

/// What a training needs, loaded.
pub struct Parts<'a> {
    /// Settings.
    pub config: &'a RunConfig,
    /// CLIP.
    pub eyes: &'a Eyes,
    /// The language model, without a graph: training records one over the same weights.
    pub language: &'a Language,
    /// Items with their pictures.
    pub data: &'a DataSet,
    /// The generator.
    pub generation: &'a Generation,
    /// The judge.
    pub ranking: &'a Ranking,
    /// Where it all lives.
    pub devices: &'a Devices,
    /// Users drawn for on the way, where `training.validation.every` asks for it.
    pub held_out: Option<&'a HeldOut<'a>>,
    /// Go on from a checkpoint of another configuration.
    pub accept_changes: bool,
}

impl Parts<'_> {
    /// Trains a preference model in `folder` and saves it there; the model that comes back has no graph.
    ///
    /// # Errors
    /// A diverging loss, a full disk, an interruption.
    pub fn train(
        &self,
        samples: &[Sample],
        folder: &Path,
        interrupt: &Interrupt,
        progress: &dyn Progress,
    ) -> anyhow::Result<PreferenceModel<Backend>> {
        use burn::module::{AutodiffModule as _, Module as _};

        let config = self.config;
        let language = self.language.tracked();
        let device = &self.devices.train;
        let model = preference::fresh(config, &language, self.generation, device)?;
        let text = self.generation.text(self.eyes);
        let visual = self.eyes.encoder();
        let differentiable = config.reflection.gradient == RewardGradient::Direct;
        // Shares its weights; nothing of it is computed unless it is asked for.
        let tracked_clip = Clip::<Backend>::from_inner(self.eyes.clip.network.clone()).no_grad();
        let tracked_visual = ClipVisualEncoder {
            clip: &tracked_clip,
            preprocessing: &self.eyes.clip.preprocessing,
        };
        let origin = [
            ("clip", &self.eyes.clip.fingerprint),
            ("language_model", &language.fingerprint),
            ("generator", &self.generation.fingerprint),
        ];
        let origin = origin.map(|(name, digest)| (name.to_string(), digest.clone()));
        let strength = config.reflection.strength;
        let references = self
            .generation
            .references(self.data, samples.iter(), strength)?;
        let training = PreferenceTraining::<Backend> {
            samples,
            frozen: Frozen {
                text: &text,
                generator: &self.generation.generator,
                visual: &visual,
                discriminator: &self.ranking.discriminator,
                references: references.as_ref(),
                latent_shape: self.generation.latent_shape,
                device: self.devices.frozen.clone(),
            },
            differentiable: differentiable.then(|| Differentiable {
                generator: Generator::tracked(&self.generation.generator),
                visual: &tracked_visual,
            }),
            training: &config.training,
            reflection: &config.reflection,
            pool: config.preference.calibrator.pool,
            origin: &origin.into(),
            accept_changes: self.accept_changes,
            folder,
            validator: self.held_out.map(|held_out| held_out as _),
            interrupt,
            progress,
        };
        let (model, outcome) = training.run(model)?;
        if outcome == Outcome::Interrupted {
            return Err(Interrupted(
                "interrupted, all saved: run the same command again to go on".into(),
            )
            .into());
        }
        preference::save(folder, &model, &language, self.generation)?;
        Ok(model.valid())
    }
}
