//! `ragar train`: the preference model, by reflection.

use std::path::Path;

use serde::Serialize;

use crate::app::assembly::{Workshop, preference};
use crate::app::backend::Backend;
use crate::app::config::{METHOD, RunConfig};
use crate::app::exhibition::{HeldOut, Visitor};
use crate::app::failure::Interrupted;
use crate::app::output::Output;
use crate::app::session::Session;
use crate::data::history::{History, Split};
use crate::generation::generator::Generator;
use crate::generation::preference::PreferenceModel;
use crate::generation::sample::Sample;
use crate::networks::clip::Clip;
use crate::optimisation::{Interrupt, Progress};
use crate::preparation::ItemFeatures;
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
    let watcher = session.output.watcher();
    let interrupt = Interrupt::install();
    let workshop = Workshop::open(session, config)?;
    config.save(out, "train", METHOD)?;

    let data = &workshop.data;
    let histories = data.users(Split::Train, config.data.train_users);
    let watched = match config.training.validation.every {
        0 => Vec::new(),
        _ => data.users(Split::Validation, config.training.validation.users),
    };
    let everyone = histories.iter().chain(&watched).copied();
    let items = workshop.prepare(config, everyone, &watcher)?;
    let samples = trainable(&workshop, config, &items, &histories, session.output)?;
    let watched = Visitor::all(&workshop, config, &items, &watched, session.output)?;
    let held_out = match watched.is_empty() {
        true => None,
        false => Some(HeldOut::new(
            config,
            &workshop,
            &items,
            watched,
            &out.join("validation"),
            &watcher,
        )?),
    };
    let parts = Parts {
        config,
        workshop: &workshop,
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

/// Samples whose reference the ranking model can judge; a note counts the others.
///
/// # Errors
/// See [`Workshop::samples`].
pub fn trainable(
    workshop: &Workshop,
    config: &RunConfig,
    items: &ItemFeatures,
    histories: &[&History],
    output: Output,
) -> anyhow::Result<Vec<Sample>> {
    let judged = |history: &&&History| workshop.ranking.discriminator.covers(history.reference);
    let unknown = histories.len() - histories.iter().filter(judged).count();
    if unknown > 0 {
        output.note(format!(
            "{unknown} users left out: the ranking model does not know their reference"
        ));
    }
    let samples = workshop.samples(config, items, histories, output)?;
    Ok(samples.into_iter().map(|(_, sample)| sample).collect())
}

/// What a training needs, loaded.
pub struct Parts<'a> {
    /// Settings.
    pub config: &'a RunConfig,
    /// Data, networks and the judge.
    pub workshop: &'a Workshop,
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
        let Workshop {
            devices,
            data,
            eyes,
            generation,
            language,
            ranking,
        } = self.workshop;
        let language = language.tracked();
        let device = &devices.train;
        let model = preference::fresh(config, &language, generation, device)?;
        let text = generation.text(eyes);
        let visual = eyes.encoder();
        let differentiable = config.reflection.gradient == RewardGradient::Direct;
        // Shares its weights; nothing of it is computed unless it is asked for.
        let tracked_clip = Clip::<Backend>::from_inner(eyes.clip.network.clone()).no_grad();
        let tracked_visual = ClipVisualEncoder {
            clip: &tracked_clip,
            preprocessing: &eyes.clip.preprocessing,
        };
        let origin = [
            ("clip", &eyes.clip.fingerprint),
            ("language_model", &language.fingerprint),
            ("generator", &generation.fingerprint),
        ];
        let origin = origin.map(|(name, digest)| (name.to_string(), digest.clone()));
        let strength = config.reflection.strength;
        let references = generation.references(data, samples.iter(), strength)?;
        let training = PreferenceTraining::<Backend> {
            samples,
            frozen: Frozen {
                text: &text,
                generator: &generation.generator,
                visual: &visual,
                discriminator: &ranking.discriminator,
                references: references.as_ref(),
                latent_shape: generation.latent_shape,
                device: devices.frozen.clone(),
            },
            differentiable: differentiable.then(|| Differentiable {
                generator: Generator::tracked(&generation.generator),
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
        preference::save(folder, &model, &language, generation)?;
        Ok(model.valid())
    }
}
