//! `ragar study ablation`: what each part of the method contributes (paper Fig. 4), and each of our options.

mod table;
mod variants;

use std::collections::BTreeSet;
use std::path::Path;

use self::variants::{FULL, UNTRAINED, Variant, slug, variants};
use super::remembered::remembered;
use crate::app::assembly::{
    DataSet, Eyes, Generation, Language, Ranking, features, preference, samples,
};
use crate::app::commands::train::{Parts, can_draw, trainable};
use crate::app::config::{METHOD, RunConfig};
use crate::app::exhibition::{Columns, HeldOut, Visitor};
use crate::app::failure::Usage;
use crate::app::session::Session;
use crate::data::history::Split;
use crate::generation::sample::Sample;
use crate::optimisation::{Interrupt, Silent};

/// Trains every variant of the groups in `only` (all where it is empty) and writes table, numbers and drawing to `out`.
pub fn ablation(session: &Session, out: &Path, seeds: u64, only: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(seeds > 0, "--seeds must be at least 1");
    let config = &session.config;
    let mut variants = variants(config);
    let groups: BTreeSet<&str> = variants.iter().map(|variant| variant.group).collect();
    if let Some(unknown) = only.iter().find(|group| !groups.contains(group.as_str())) {
        let known = groups.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Usage(format!("--only {unknown}: the groups are {known}")).into());
    }
    variants.retain(|variant| only.is_empty() || only.iter().any(|group| group == variant.group));
    // "Without L_rank" is "without the rank reward": asked for in one call, it is trained once.
    let mut different: Vec<Variant> = Vec::new();
    for variant in variants {
        if different.iter().all(|known| known.config != variant.config) {
            different.push(variant);
        }
    }
    let mut variants = different;
    variants.insert(
        0,
        Variant {
            group: "",
            name: FULL.into(),
            config: config.clone(),
        },
    );

    let devices = session.devices()?;
    let data = DataSet::open(&config.data, session.output)?;
    let watcher = session.output.watcher();
    let interrupt = Interrupt::install();
    let frozen = &devices.frozen;
    let eyes = Eyes::open(&config.models, frozen)?;
    let generation = Generation::open(&config.models, frozen)?;
    let language = Language::open(&config.models, frozen)?;
    can_draw(config, &generation)?;
    variants.retain(|variant| {
        let drawn = can_draw(&variant.config, &generation);
        if let Err(Usage(reason)) = &drawn {
            let note = format!("{}: left out, {reason}", variant.name);
            session.output.note(note);
        }
        drawn.is_ok()
    });
    let place = &config.models.ranking;
    let ranking = Ranking::open(config, &data, &eyes, place, frozen, &watcher)?;
    let learners = data.users(Split::Train, config.data.train_users);
    let testers = data.users(Split::Test, config.evaluation.users);
    let everyone: Vec<_> = learners.iter().chain(&testers).copied().collect();
    let words = samples::items_of(&everyone);
    let items = features::prepare(config, &data, &eyes, &language, &words, frozen, &watcher)?;
    config.save(out, "study ablation", METHOD)?;

    let gather = |config: &RunConfig, histories: &[_]| {
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
    let visitors: Vec<Visitor<'_>> = gather(config, &testers)?
        .into_iter()
        .filter(|(_, sample)| ranking.discriminator.covers(sample.reference))
        .map(|(history, sample)| Visitor { history, sample })
        .collect();
    anyhow::ensure!(
        !visitors.is_empty(),
        "no user of split \"test\" to evaluate on"
    );
    let pictures = out.join("pictures");
    let held_out = HeldOut::new(
        config,
        &data,
        &eyes,
        &generation,
        &ranking,
        &items,
        &devices,
        visitors,
        &pictures,
        &watcher,
    )?;
    let covered: Vec<_> = testers
        .iter()
        .filter(|history| ranking.discriminator.covers(history.reference))
        .copied()
        .collect();

    let mut results: Vec<(&str, &str, Vec<Columns>)> = vec![("", UNTRAINED, Vec::new())];
    let untrained = {
        use burn::module::AutodiffModule as _;
        let fresh = preference::fresh(config, &language.tracked(), &generation, &devices.train)?;
        held_out
            .measure(
                &fresh.valid(),
                &held_out.samples(),
                &config.inference,
                UNTRAINED,
            )?
            .0
    };
    results[0].2 = vec![untrained; usize::try_from(seeds)?];
    for variant in &variants {
        let learning = trainable(
            gather(&variant.config, &learners)?,
            &ranking,
            session.output,
        );
        let testing = gather(&variant.config, &covered)?;
        let testing: Vec<&Sample> = testing.iter().map(|(_, sample)| sample).collect();
        let mut columns = Vec::new();
        for seed in 0..seeds {
            let mut config = variant.config.clone();
            config.training.seed += seed;
            let name = format!("{}/seed-{seed}", slug(&variant.name));
            let folder = out.join("runs").join(&name);
            let configuration = config.to_toml(METHOD)?;
            let scores = remembered(&folder.join("scores.json"), &configuration, || {
                config.save(&folder, "train", METHOD)?;
                let parts = Parts {
                    config: &config,
                    eyes: &eyes,
                    language: &language,
                    data: &data,
                    generation: &generation,
                    ranking: &ranking,
                    devices: &devices,
                    held_out: None,
                    accept_changes: false,
                };
                let model = parts.train(&learning, &folder, &interrupt, &Silent)?;
                let (measured, _) = held_out.measure(&model, &testing, &config.inference, &name)?;
                let mean = |name: &str| measured.get(name).map_or(f64::NAN, |v| super::mean(v));
                session.output.note(format!(
                    "{}, seed {seed}: both@1 {:.3}, ΔR {:+.4}, reward {:+.4}",
                    variant.name,
                    mean("both@1"),
                    mean("rank_change"),
                    mean("reward")
                ));
                Ok(measured)
            })?;
            columns.push(scores);
        }
        results.push((variant.group, &variant.name, columns));
    }
    table::write(session, out, config, seeds, &results)
}
