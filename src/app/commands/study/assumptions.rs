//! `ragar study assumptions`: do items that belong together tell the ranking model more? (paper Sec. 2, Fig. 2)

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::remembered::remembered;
use super::{by_column, less, mean};
use crate::app::assembly::{DataSet, Eyes, Ground, features};
use crate::app::backend::{Backend, Devices};
use crate::app::config::RunConfig;
use crate::app::files;
use crate::app::report::intervals;
use crate::app::session::Session;
use crate::evaluation::interval::{Interval, bootstrap};
use crate::optimisation::{Interrupt, Silent};
use crate::recommender::rank::{RankingScores, evaluate_embeddings};
use crate::recommender::{InteractionSplit, Interactions, Micro};
use crate::training::assumptions::{Question, Selection};
use crate::training::recommender::{TrainingSurroundings, train};

/// The configuration that the study depends on.
const SECTIONS: &[&str] = &["data", "models", "features", "ranking", "retrieval"];

#[derive(Serialize)]
struct Assumptions {
    users: usize,
    items: usize,
    k: usize,
    seeds: u64,
    epochs: usize,
    histories: Vec<Row>,
    /// `ret` less each of the others, user by user.
    differences: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    history: String,
    /// Over users, each user's figure being the mean over seeds.
    recall: Interval,
    ndcg: Interval,
    /// The mean of each seed.
    recall_of_seeds: Vec<f64>,
    ndcg_of_seeds: Vec<f64>,
}

/// Figures of one selection: a row of users per seed.
#[derive(Default)]
struct Figures {
    recall: Vec<Vec<f64>>,
    ndcg: Vec<Vec<f64>>,
}

/// One training's figures, a value per user.
#[derive(Serialize, Deserialize)]
struct Lists {
    recall: Vec<f64>,
    ndcg: Vec<f64>,
}

/// Trains MICRO on the histories of Sec. 2 and writes table, numbers and drawing to `out`, where finished trainings stay
/// known to a later call.
pub fn assumptions(session: &Session, out: &Path, seeds: u64) -> anyhow::Result<()> {
    anyhow::ensure!(seeds > 0, "--seeds must be at least 1");
    let config = &session.config;
    let devices = session.devices()?;
    let watcher = session.output.watcher();
    let data = DataSet::open(&config.data, session.output)?;
    let eyes = if config.ranking.has_feature_file() {
        None
    } else {
        Some(Eyes::open(&config.models, &devices.frozen)?)
    };
    let ground = Ground::new(config, &data, eyes.as_ref(), &watcher)?;
    // What retrieval reads: captions, or the text features where a file holds them.
    let semantic = match &eyes {
        Some(eyes) => {
            let places = ground.items.places();
            features::captioned(config, &data, eyes, places, &devices.frozen, &watcher)?.1
        }
        None => (0..ground.item_ids.len())
            .map(|item| ground.features.text.row(item).to_vec())
            .collect(),
    };
    let (_, by_user) = data.interactions();
    let interactions = ground.items.interactions(&by_user)?;
    let k = config.retrieval.k;
    let question = Question::new(&interactions, k)
        .with_context(|| format!("nobody has more than 2 k = {} items", 2 * k))?;
    let configuration = config.to_toml(SECTIONS)?;
    config.save(out, "study assumptions", SECTIONS)?;
    let interrupt = Interrupt::install();

    let mut figures: Vec<Figures> = Selection::ALL.iter().map(|_| Figures::default()).collect();
    // Seed by seed, so that what is there after a while compares.
    for seed in 0..seeds {
        for (selection, figures) in Selection::ALL.into_iter().zip(&mut figures) {
            let name = selection.name();
            let file = format!("{}-seed-{seed}.json", name.replace(' ', "-"));
            let lists = remembered(&out.join("scores").join(file), &configuration, || {
                let histories = question.select(selection, &semantic, k, seed)?;
                let scores = judged(
                    config, &ground, &question, histories, seed, &devices, &interrupt,
                )?;
                session.output.note(format!(
                    "seed {seed}, {name}: recall@10 {:.4}, NDCG@10 {:.4}",
                    scores.mean_recall(),
                    scores.mean_ndcg()
                ));
                Ok(Lists {
                    recall: scores.recall,
                    ndcg: scores.ndcg,
                })
            })?;
            figures.recall.push(lists.recall);
            figures.ndcg.push(lists.ndcg);
        }
    }

    let options = &config.evaluation.intervals;
    let row = |history: String, recall: &[Vec<f64>], ndcg: &[Vec<f64>]| Row {
        history,
        recall: bootstrap(&by_column(recall), options),
        ndcg: bootstrap(&by_column(ndcg), options),
        recall_of_seeds: recall.iter().map(|row| mean(row)).collect(),
        ndcg_of_seeds: ndcg.iter().map(|row| mean(row)).collect(),
    };
    let histories = Selection::ALL.into_iter().zip(&figures);
    let histories: Vec<Row> = histories
        .map(|(selection, f)| row(selection.name().into(), &f.recall, &f.ndcg))
        .collect();
    let differences = Selection::ALL.into_iter().zip(&figures).skip(1);
    let differences: Vec<Row> = differences
        .map(|(selection, f)| {
            row(
                format!("ret − {}", selection.name()),
                &less(&figures[0].recall, &f.recall),
                &less(&figures[0].ndcg, &f.ndcg),
            )
        })
        .collect();
    let study = Assumptions {
        users: histories[0].recall.count,
        items: ground.item_ids.len(),
        k,
        seeds,
        epochs: config.ranking.training.max_epochs,
        histories,
        differences,
    };
    let text = table(&study);
    let panel = |title: &str, value: fn(&Row) -> Interval| {
        let rows = study.histories.iter();
        let rows = rows.map(|row| (row.history.clone(), value(row))).collect();
        (title.to_string(), rows)
    };
    let svg = intervals(&[
        panel("Recall@10", |row| row.recall),
        panel("NDCG@10", |row| row.ndcg),
    ]);
    files::write_json(&out.join("assumptions.json"), &study)?;
    files::write(&out.join("assumptions.md"), text.as_bytes())?;
    files::write(&out.join("assumptions.svg"), svg.as_bytes())?;
    session.output.result(text, &study)
}

/// Trains on `histories` for the configured number of epochs and ranks each user's reference.
fn judged(
    config: &RunConfig,
    ground: &Ground,
    question: &Question,
    histories: Interactions,
    seed: u64,
    devices: &Devices,
    interrupt: &Interrupt,
) -> anyhow::Result<RankingScores> {
    let mut model = config.ranking.model.clone();
    let mut training = config.ranking.training.clone();
    model.seed = seed;
    training.seed = seed;
    let nothing = vec![Vec::new(); histories.num_users()];
    let nothing = Interactions::new(histories.num_items(), nothing)?;
    // No validation items: all histories are trained on for equally long.
    let split = InteractionSplit {
        train: histories,
        validation: nothing.clone(),
        test: nothing,
    };
    let trained = train::<Backend, Micro<Backend>>(
        &model,
        &training,
        &ground.features,
        &split,
        &devices.train,
        &devices.frozen,
        TrainingSurroundings {
            checkpoints: None,
            log: None,
            interrupt,
            progress: &Silent,
        },
    )?;
    let vectors = trained.model.embeddings();
    let mut options = training.ranking();
    options.cutoffs = vec![10];
    let mut scores = evaluate_embeddings(
        &vectors.users,
        &vectors.items,
        &question.histories.sorted(),
        &question.references,
        &options,
    );
    Ok(scores.remove(0))
}

fn table(study: &Assumptions) -> String {
    let mut text = format!(
        "{} users, {} items, k = {}, {} seeds, {} epochs\n\n| history | Recall@10 | NDCG@10 |\n|---|---|---|\n",
        study.users, study.items, study.k, study.seeds, study.epochs
    );
    for row in study.histories.iter().chain(&study.differences) {
        let cell = |interval: &Interval| {
            format!(
                "{:.4} ({:.4} … {:.4})",
                interval.mean, interval.low, interval.high
            )
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            row.history,
            cell(&row.recall),
            cell(&row.ndcg)
        );
    }
    text
}
