//! `ragar study augmentation`: does the ranking model learn more from drawn pictures than from the references' own?
//! (paper Table 4)
//!
//! The paper trains MICRO with generated pictures in place of the reference pictures. Here an item that is the reference
//! of a user gets the mean of the features of all pictures drawn in its place, at length one (ours: features belong to
//! items, drawings to users).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use image::RgbImage;
use serde::Serialize;

use super::{by_column, less, mean};
use crate::app::assembly::Ground;
use crate::app::backend::Backend;
use crate::app::comparison::{Comparison, Drawn, MethodName, Places};
use crate::app::config::METHOD;
use crate::app::exhibition::Visitor;
use crate::app::files;
use crate::app::session::Session;
use crate::evaluation::interval::{BootstrapOptions, Interval, bootstrap};
use crate::evaluation::paired::{PairedComparison, compare_paired};
use crate::optimisation::{Interrupt, Progress};
use crate::recommender::rank::{RankingScores, evaluate_embeddings};
use crate::recommender::{FeatureTable, Interactions, ItemFeatures, Micro};
use crate::training::recommender::{TrainingSurroundings, masks, train};

/// Length of the judged lists (paper: 10).
const CUTOFF: usize = 10;

#[derive(Serialize)]
struct Augmentation {
    users: usize,
    items: usize,
    /// Items whose picture was replaced.
    replaced: usize,
    seeds: u64,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    /// `originals`, or the method whose pictures were trained on.
    pictures: String,
    /// Everyone's test items.
    test_items: Figures,
    /// The references of the users drawn for, as what each of them should be shown.
    references: Figures,
}

/// Over users, each user's figure being the mean over seeds.
#[derive(Serialize)]
struct Figures {
    recall: Interval,
    ndcg: Interval,
    recall_of_seeds: Vec<f64>,
    ndcg_of_seeds: Vec<f64>,
    /// Less the originals' NDCG, user by user.
    ndcg_gain: Option<PairedComparison>,
    /// Less the originals' recall, user by user.
    recall_gain: Option<PairedComparison>,
}

/// A row of users per seed.
#[derive(Default, Clone)]
struct Lists {
    recall: Vec<Vec<f64>>,
    ndcg: Vec<Vec<f64>>,
}

impl Lists {
    fn push(&mut self, scores: RankingScores) {
        // The gain of no hit is a sum of nothing, which is a negative zero.
        let plain = |values: Vec<f64>| values.into_iter().map(|value| value + 0.0).collect();
        self.recall.push(plain(scores.recall));
        self.ndcg.push(plain(scores.ndcg));
    }

    fn figures(&self, originals: Option<&Self>, options: &BootstrapOptions) -> Figures {
        let gain = |own: &[Vec<f64>], other: &[Vec<f64>]| {
            let gains: Vec<Option<f64>> =
                by_column(&less(own, other)).into_iter().map(Some).collect();
            compare_paired(&gains, &vec![Some(0.0); gains.len()], options)
        };
        Figures {
            recall: bootstrap(&by_column(&self.recall), options),
            ndcg: bootstrap(&by_column(&self.ndcg), options),
            recall_of_seeds: self.recall.iter().map(|row| mean(row)).collect(),
            ndcg_of_seeds: self.ndcg.iter().map(|row| mean(row)).collect(),
            recall_gain: originals.map(|other| gain(&self.recall, &other.recall)),
            ndcg_gain: originals.map(|other| gain(&self.ndcg, &other.ndcg)),
        }
    }
}

/// Draws with `methods` for the test users, trains MICRO on each method's pictures and on the originals, and writes
/// table and numbers to `out`. Pictures are those of `ragar eval` in `drawn`.
pub fn augmentation(
    session: &Session,
    run: &Path,
    methods: &[MethodName],
    drawn: Option<&Path>,
    out: &Path,
    seeds: u64,
) -> anyhow::Result<()> {
    anyhow::ensure!(seeds > 0, "--seeds must be at least 1");
    let trained = run.join("config.toml").is_file() || methods.contains(&MethodName::Ragar);
    let config = match trained {
        true => session.config_of(run)?,
        false => session.config.clone(),
    };
    let watcher = session.output.watcher();
    let interrupt = Interrupt::install();
    let comparison = Comparison::open(session, config, methods, &watcher)?;
    let config = &comparison.config;
    config.save(out, "study augmentation", METHOD)?;
    let visitors = comparison.visitors()?;
    let ground = Ground::new(config, &comparison.data, Some(&comparison.eyes), &watcher)?;
    let drawn = drawn.map_or_else(|| run.join("eval"), Path::to_path_buf);
    let places = Places {
        run,
        out: &drawn,
        interrupt: &interrupt,
        progress: &watcher,
    };
    let mut sums: Vec<(String, Sums)> = Vec::new();
    comparison.each_method(methods, &visitors, places, |batch| {
        let label = batch.method.label();
        if sums.last().is_none_or(|(name, _)| name != label) {
            sums.push((label.to_string(), Sums::new()));
        }
        if let Some((_, sums)) = sums.last_mut() {
            let visitors = &visitors[batch.first..];
            add(&comparison, &ground, visitors, &batch.drawn, sums);
        }
        Ok(())
    })?;
    let replaced = sums.iter().map(|(_, sums)| sums.len()).max().unwrap_or(0);
    let mut conditions = vec![("originals".to_string(), ground.features.clone())];
    for (name, sums) in sums {
        conditions.push((name, with_pictures(&ground, sums)?));
    }

    let study = Study {
        comparison: &comparison,
        ground: &ground,
        excluded: masks(&ground.split, config.ranking.training.mask_validation),
        references: references(&ground, &visitors)?,
        interrupt: &interrupt,
        progress: &watcher,
    };
    let mut lists = vec![(Lists::default(), Lists::default()); conditions.len()];
    // Seed by seed, so that what is there after a while compares.
    for seed in 0..seeds {
        for ((name, features), (tests, references)) in conditions.iter().zip(&mut lists) {
            let [test, reference] = study.judged(features, seed)?;
            session.output.note(format!(
                "seed {seed}, {name}: recall@{CUTOFF} {:.4}, NDCG@{CUTOFF} {:.4}; references {:.4}, {:.4}",
                test.mean_recall(),
                test.mean_ndcg(),
                reference.mean_recall(),
                reference.mean_ndcg()
            ));
            tests.push(test);
            references.push(reference);
        }
    }
    let options = &config.evaluation.intervals;
    let originals = lists[0].clone();
    let rows = conditions.iter().zip(&lists).enumerate();
    let rows = rows.map(|(place, ((name, _), (tests, references)))| Row {
        pictures: name.clone(),
        test_items: tests.figures((place > 0).then_some(&originals.0), options),
        references: references.figures((place > 0).then_some(&originals.1), options),
    });
    let study = Augmentation {
        users: visitors.len(),
        items: ground.item_ids.len(),
        replaced,
        seeds,
        rows: rows.collect(),
    };
    let text = table(&study);
    files::write_json(&out.join("augmentation.json"), &study)?;
    files::write(&out.join("augmentation.md"), text.as_bytes())?;
    session.output.result(text, &study)
}

/// The sum of the features drawn in an item's place, by the item's row.
type Sums = BTreeMap<usize, Vec<f32>>;

/// Takes up the pictures drawn for `visitors`; one that failed adds nothing.
fn add(
    comparison: &Comparison,
    ground: &Ground,
    visitors: &[Visitor<'_>],
    drawn: &Drawn,
    sums: &mut Sums,
) {
    let visual = comparison.eyes.visual();
    for (visitor, pictures) in visitors.iter().zip(drawn) {
        let Some(row) = ground.items.row(visitor.sample.reference) else {
            continue;
        };
        let good: Vec<&RgbImage> = pictures.iter().filter_map(|p| p.as_ref().ok()).collect();
        if good.is_empty() {
            continue;
        }
        for embedding in visual.encode(&good) {
            let sum = sums
                .entry(row)
                .or_insert_with(|| vec![0.0; embedding.len()]);
            for (sum, value) in sum.iter_mut().zip(&embedding) {
                *sum += value;
            }
        }
    }
}

/// The features of all items, with the mean direction of what was drawn in their references' places.
fn with_pictures(ground: &Ground, sums: Sums) -> anyhow::Result<ItemFeatures> {
    let given = &ground.features.image;
    let mut rows: Vec<Vec<f32>> = (0..given.num_rows())
        .map(|row| given.row(row).to_vec())
        .collect();
    for (row, mut sum) in sums {
        let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
        sum.iter_mut().for_each(|value| *value /= length.max(1e-12));
        rows[row] = sum;
    }
    let image = FeatureTable::from_rows("image", &rows)?;
    Ok(ItemFeatures::new(image, ground.features.text.clone())?)
}

/// Each visitor's reference as what the user should be shown; nothing for other users.
fn references(ground: &Ground, visitors: &[Visitor<'_>]) -> anyhow::Result<Interactions> {
    let rows = ground.rows_of_users();
    let mut by_user = vec![Vec::new(); ground.users.len()];
    for visitor in visitors {
        let user = rows.get(&visitor.sample.user);
        let item = ground.items.row(visitor.sample.reference);
        if let (Some(user), Some(item)) = (user, item) {
            by_user[*user] = vec![item];
        }
    }
    Ok(Interactions::new(ground.item_ids.len(), by_user)?)
}

struct Study<'a> {
    comparison: &'a Comparison,
    ground: &'a Ground,
    excluded: Vec<Vec<u32>>,
    references: Interactions,
    interrupt: &'a Interrupt,
    progress: &'a dyn Progress,
}

impl Study<'_> {
    /// Trains on `features` and ranks everyone's test items, and the references.
    fn judged(&self, features: &ItemFeatures, seed: u64) -> anyhow::Result<[RankingScores; 2]> {
        let config = &self.comparison.config;
        let mut model = config.ranking.model.clone();
        let mut training = config.ranking.training.clone();
        model.seed = seed;
        training.seed = seed;
        let devices = &self.comparison.devices;
        let trained = train::<Backend, Micro<Backend>>(
            &model,
            &training,
            features,
            &self.ground.split,
            &devices.train,
            &devices.frozen,
            TrainingSurroundings {
                checkpoints: None,
                log: None,
                interrupt: self.interrupt,
                progress: self.progress,
            },
        )?;
        let vectors = trained.model.embeddings();
        let mut options = training.ranking();
        options.cutoffs = vec![CUTOFF];
        let judge = |excluded: &[Vec<u32>], relevant: &Interactions| {
            let (users, items) = (&vectors.users, &vectors.items);
            evaluate_embeddings(users, items, excluded, relevant, &options).remove(0)
        };
        // A reference that its user took already is to be found all the same.
        let mut excluded = self.excluded.clone();
        for (row, references) in excluded.iter_mut().zip(self.references.by_user()) {
            row.retain(|item| !references.contains(item));
        }
        Ok([
            judge(&self.excluded, &self.ground.split.test),
            judge(&excluded, &self.references),
        ])
    }
}

fn table(study: &Augmentation) -> String {
    let mut text = format!(
        "{} users drawn for, {} of {} items with drawn pictures, {} seeds\n\n\
        | pictures | Recall@{CUTOFF} | NDCG@{CUTOFF} | Recall@{CUTOFF} of references | NDCG@{CUTOFF} of references |\n|---|---|---|---|---|\n",
        study.users, study.replaced, study.items, study.seeds
    );
    for row in &study.rows {
        let cell = |interval: &Interval, gain: &Option<PairedComparison>| {
            let mut text = format!(
                "{:.4} ({:.4} … {:.4})",
                interval.mean, interval.low, interval.high
            );
            if let Some(gain) = gain {
                let _ = write!(
                    text,
                    ", {:+.4}, p {:.3}",
                    gain.difference.mean, gain.p_value
                );
            }
            text
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            row.pictures,
            cell(&row.test_items.recall, &row.test_items.recall_gain),
            cell(&row.test_items.ndcg, &row.test_items.ndcg_gain),
            cell(&row.references.recall, &row.references.recall_gain),
            cell(&row.references.ndcg, &row.references.ndcg_gain),
        );
    }
    text
}
