//! `ragar study ablation`: what each part of the method contributes (paper Fig. 4), and each of our options.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::remembered::remembered;
use super::{by_column, less};
use crate::app::assembly::{
    DataSet, Eyes, Generation, Language, Ranking, features, preference, samples,
};
use crate::app::commands::train::{Parts, trainable};
use crate::app::config::{METHOD, RunConfig};
use crate::app::exhibition::{Columns, HeldOut, Visitor};
use crate::app::failure::Usage;
use crate::app::files;
use crate::app::report::intervals;
use crate::app::session::Session;
use crate::data::history::Split;
use crate::evaluation::interval::{Interval, bootstrap};
use crate::generation::sample::Sample;
use crate::optimisation::{Interrupt, Silent};
use crate::reflection::Exploration;
use crate::reflection::reward::{Baseline, RewardForm};

/// Scores in the order of the table.
const SCORES: [&str; 5] = [
    "both@1",
    "style@1",
    "rank_change",
    "reward",
    "image_similarity",
];

/// The method with one thing changed.
struct Variant {
    group: &'static str,
    name: String,
    config: RunConfig,
}

/// What is compared with: the configuration as it is.
const FULL: &str = "as configured";
/// The method before its first step: `E_gen = E_K`.
const UNTRAINED: &str = "untrained";

fn variants(config: &RunConfig) -> Vec<Variant> {
    let mut all = Vec::new();
    let mut add = |group, name: String, change: &dyn Fn(&mut RunConfig)| {
        let mut changed = config.clone();
        change(&mut changed);
        // What changes nothing is the method as configured.
        if changed != *config {
            let config = changed;
            all.push(Variant {
                group,
                name,
                config,
            });
        }
    };
    add("retrieval", "without retrieval".into(), &|c| {
        c.retrieval.k = 0
    });
    for k in [1, 3, 5, 8, 10, 15, 20] {
        add("retrieval", format!("k = {k}"), &|c| c.retrieval.k = k);
    }
    add("noises", "without the rank reward".into(), &|c| {
        c.reflection.num_noises = 0
    });
    for n in [1, 2, 3, 5] {
        add("noises", format!("n = {n}"), &|c| {
            c.reflection.num_noises = n
        });
    }
    add("losses", "without L_rank".into(), &|c| {
        c.reflection.num_noises = 0
    });
    add("losses", "without L_cal".into(), &|c| {
        c.reflection.calibration_weight = 0.0
    });
    add("losses", "without L_sem".into(), &|c| {
        c.reflection.semantic_weight = 0.0
    });
    add("options", "advantages as they are".into(), &|c| {
        c.reflection.normalise_advantages = false;
    });
    for (name, baseline) in [
        ("no baseline", Baseline::None),
        ("the batch's mean as baseline", Baseline::BatchMean),
        ("leave-one-out", Baseline::LeaveOneOut),
    ] {
        add("options", name.into(), &|c| {
            c.reflection.baseline = baseline
        });
    }
    for (name, form) in [
        ("margin reward", RewardForm::Margin),
        ("hinge reward", RewardForm::Hinge),
        ("rank reward", RewardForm::Rank),
    ] {
        add("options", name.into(), &|c| c.reflection.reward = form);
    }
    add("options", "noise of its own for each image".into(), &|c| {
        c.reflection.common_noise = false;
    });
    add("options", "one noise for all tokens".into(), &|c| {
        c.reflection.exploration = Exploration::SharedByTokens;
    });
    add("options", "learned σ".into(), &|c| {
        c.reflection.learn_sigma = true
    });
    add("options", "retrieval as a token".into(), &|c| {
        c.preference.retrieval_token = true
    });
    add(
        "options",
        "a share of the way to what retrieval found".into(),
        &|c| c.preference.retrieval_shift = true,
    );
    all
}

#[derive(Serialize)]
struct Ablation {
    users: usize,
    seeds: u64,
    steps: usize,
    batch_size: usize,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    group: String,
    variant: String,
    /// Over users, each user's figure being the mean over seeds.
    scores: BTreeMap<String, Interval>,
    /// Less those of the method as configured, user by user.
    differences: BTreeMap<String, Interval>,
    /// The mean of each seed.
    of_seeds: BTreeMap<String, Vec<f64>>,
}

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
            .measure(&fresh.valid(), &held_out.samples(), UNTRAINED)?
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
                let (measured, _) = held_out.measure(&model, &testing, &name)?;
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
    write(session, out, config, seeds, &results)
}

fn write(
    session: &Session,
    out: &Path,
    config: &RunConfig,
    seeds: u64,
    results: &[(&str, &str, Vec<Columns>)],
) -> anyhow::Result<()> {
    let options = &config.evaluation.intervals;
    let of = |columns: &[Columns], score: &str| -> Vec<Vec<f64>> {
        columns
            .iter()
            .filter_map(|c| c.get(score).cloned())
            .collect()
    };
    let full = &results
        .iter()
        .find(|(_, name, _)| *name == FULL)
        .context("the whole method")?
        .2;
    let mut rows = Vec::new();
    for (group, name, columns) in results {
        let mut row = Row {
            group: (*group).into(),
            variant: (*name).into(),
            scores: BTreeMap::new(),
            differences: BTreeMap::new(),
            of_seeds: BTreeMap::new(),
        };
        for score in SCORES {
            let values = of(columns, score);
            if values.is_empty() {
                continue;
            }
            let key = score.to_string();
            let difference = by_column(&less(&values, &of(full, score)));
            row.scores
                .insert(key.clone(), bootstrap(&by_column(&values), options));
            row.differences
                .insert(key.clone(), bootstrap(&difference, options));
            row.of_seeds
                .insert(key, values.iter().map(|v| super::mean(v)).collect());
        }
        rows.push(row);
    }
    let users = rows[0]
        .scores
        .values()
        .next()
        .map_or(0, |interval| interval.count);
    let study = Ablation {
        users,
        seeds,
        steps: config.training.steps,
        batch_size: config.training.batch_size,
        rows,
    };
    let text = table(&study);
    let panel = |score: &str| {
        let rows = study.rows.iter();
        let rows = rows.filter_map(|row| Some((row.variant.clone(), *row.scores.get(score)?)));
        (score.to_string(), rows.collect())
    };
    let shown = SCORES
        .iter()
        .filter(|score| study.rows[0].scores.contains_key(**score));
    let svg = intervals(&shown.take(4).map(|score| panel(score)).collect::<Vec<_>>());
    files::write_json(&out.join("ablation.json"), &study)?;
    files::write(&out.join("ablation.md"), text.as_bytes())?;
    files::write(&out.join("ablation.svg"), svg.as_bytes())?;
    session.output.result(text, &study)
}

fn table(study: &Ablation) -> String {
    let mut text = format!(
        "{} test users, {} seeds, {} steps of {} users. In brackets the difference to the method as configured, user by \
         user, with its 95 % interval; bold where it excludes zero.\n\n| variant |",
        study.users, study.seeds, study.steps, study.batch_size
    );
    let shown: Vec<&str> = SCORES
        .into_iter()
        .filter(|score| study.rows[0].scores.contains_key(*score))
        .collect();
    for score in &shown {
        let _ = write!(text, " {score} |");
    }
    text += "\n|---|";
    text += &"---|".repeat(shown.len());
    text.push('\n');
    for row in &study.rows {
        let _ = write!(text, "| {} |", row.variant);
        for score in &shown {
            let (mean, difference) = (&row.scores[*score], &row.differences[*score]);
            if row.variant == FULL {
                let _ = write!(
                    text,
                    " {:.4} ({:.4} … {:.4}) |",
                    mean.mean, mean.low, mean.high
                );
                continue;
            }
            let bold = if difference.excludes_zero() { "**" } else { "" };
            let _ = write!(
                text,
                " {:.4} [{bold}{:+.4}{bold}, {:+.4} … {:+.4}] |",
                mean.mean, difference.mean, difference.low, difference.high
            );
        }
        text.push('\n');
    }
    text
}

/// A variant's name as a folder's.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => slug.push(c.to_ascii_lowercase()),
            'σ' => slug += "sigma",
            _ if !slug.ends_with('-') && !slug.is_empty() => slug.push('-'),
            _ => {}
        }
    }
    slug.trim_end_matches('-').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_differ_from_the_method_and_from_each_other_by_folder() {
        let config = RunConfig::default();
        let all = variants(&config);
        let slugs: BTreeSet<String> = all.iter().map(|variant| slug(&variant.name)).collect();
        assert_eq!(slugs.len(), all.len(), "a folder each");
        assert!(all.iter().all(|variant| variant.config != config));
        assert!(all.iter().all(|variant| variant.config.validate().is_ok()));
        assert!(
            all.iter().all(|variant| variant.name != "k = 5"),
            "that is the default"
        );
        assert!(slugs.contains("without-l-cal") && slugs.contains("learned-sigma"));
    }
}
