//! `ragar study ablation`: what each part of the method contributes (paper Fig. 4), and each of our options.

mod table;
mod variants;

use std::collections::BTreeSet;
use std::path::Path;

use self::variants::{FULL, UNTRAINED, Variant, slug, variants};
use super::remembered::remembered;
use crate::app::assembly::{Workshop, can_draw, preference};
use crate::app::commands::train::{Parts, trainable};
use crate::app::config::METHOD;
use crate::app::exhibition::{Columns, HeldOut, Visitor};
use crate::app::failure::Usage;
use crate::app::session::Session;
use crate::data::history::Split;
use crate::generation::sample::Sample;
use crate::optimisation::Interrupt;

/// Trains every variant that `only` names, by its group or its folder (all where it is empty), and writes table, numbers and
/// drawing to `out`.
pub fn ablation(session: &Session, out: &Path, seeds: u64, only: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(seeds > 0, "--seeds must be at least 1");
    let config = &session.config;
    let mut variants = variants(config);
    if let Some(unknown) = only
        .iter()
        .find(|word| !variants.iter().any(|variant| variant.is_called(word)))
    {
        let groups: BTreeSet<&str> = variants.iter().map(|variant| variant.group).collect();
        let groups = groups.into_iter().collect::<Vec<_>>().join(", ");
        let names: Vec<String> = variants.iter().map(|variant| slug(&variant.name)).collect();
        let names = names.join(", ");
        let text = format!("--only {unknown}: the groups are {groups}; the variants {names}");
        return Err(Usage(text).into());
    }
    variants.retain(|own| only.is_empty() || only.iter().any(|word| own.is_called(word)));
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

    let watcher = session.output.watcher();
    let interrupt = Interrupt::install();
    let workshop = Workshop::open(session, config)?;
    variants.retain(|variant| {
        let drawn = can_draw(&variant.config, &workshop.generation);
        if let Err(Usage(reason)) = &drawn {
            let note = format!("{}: left out, {reason}", variant.name);
            session.output.note(note);
        }
        drawn.is_ok()
    });
    let learners = workshop.data.users(Split::Train, config.data.train_users);
    let testers = workshop.data.users(Split::Test, config.evaluation.users);
    let everyone = learners.iter().chain(&testers).copied();
    let items = workshop.prepare(config, everyone, &watcher)?;
    config.save(out, "study ablation", METHOD)?;

    let visitors = Visitor::all(&workshop, config, &items, &testers, session.output)?;
    anyhow::ensure!(
        !visitors.is_empty(),
        "no user of split \"test\" to evaluate on"
    );
    let pictures = out.join("pictures");
    let held_out = HeldOut::new(config, &workshop, &items, visitors, &pictures, &watcher)?;

    let mut results: Vec<(&str, &str, Vec<Columns>)> = vec![("", UNTRAINED, Vec::new())];
    let untrained = {
        use burn::module::AutodiffModule as _;
        let language = workshop.language.tracked();
        let device = &workshop.devices.train;
        let fresh = preference::fresh(config, &language, &workshop.generation, device)?;
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
        let (config, output) = (&variant.config, session.output);
        let learning = trainable(&workshop, config, &items, &learners, output)?;
        let testing = workshop.samples(config, &items, &testers, output)?;
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
                    workshop: &workshop,
                    held_out: None,
                    accept_changes: false,
                };
                let begins = format!("{}, seed {seed}: to be trained", variant.name);
                session.output.note(begins);
                let model = parts.train(&learning, &folder, &interrupt, &watcher)?;
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
