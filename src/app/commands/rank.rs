//! `ragar rank`: the ranking model alone.

mod score;

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::app::assembly::{AnyRanking, DataSet, Eyes, Ground};
use crate::app::session::Session;
use crate::evaluation::ranking::{RankingIntervals, ranking_intervals};
use crate::optimisation::{Interrupt, Progress};
use crate::recommender::rank::evaluate_embeddings;
use crate::recommender::{Interactions, RecommenderKind};
use crate::training::recommender::{RankingSummary, RecommenderReport, masks};

pub use score::score;

/// The configuration that a ranking model depends on.
const SECTIONS: &[&str] = &["data", "models", "features", "ranking"];

/// Trains the configured kind of model in `out`, or in `models.ranking`.
pub fn train(session: &Session, out: Option<&Path>) -> anyhow::Result<()> {
    let config = &session.config;
    let folder = out.unwrap_or(&config.models.ranking);
    let devices = session.devices()?;
    let watcher = session.output.watcher();
    let ground = ground(session, &watcher)?;
    let interrupt = Interrupt::install();
    config.save(folder, "rank train", SECTIONS)?;
    let ranking = AnyRanking::train(config, &ground, folder, &devices, &watcher, &interrupt)?;
    let report = &ranking.report;
    let text = format!(
        "{}: {} epochs, the best was {}\n{}",
        folder.display(),
        report.num_epochs,
        report.best_epoch,
        table(ranking.kind, report)
    );
    session.output.result(text, report)
}

/// Users, items and features, embedded by CLIP unless a file holds them.
fn ground(session: &Session, progress: &dyn Progress) -> anyhow::Result<Ground> {
    let config = &session.config;
    let data = DataSet::open(&config.data, session.output)?;
    let eyes = if config.ranking.has_feature_file() {
        None
    } else {
        Some(Eyes::open(&config.models, &session.devices()?.frozen)?)
    };
    Ground::new(config, &data, eyes.as_ref(), progress)
}

fn table(kind: RecommenderKind, report: &RecommenderReport) -> String {
    let mut text = String::new();
    let mut rows = |name: &str, summaries: &[RankingSummary]| {
        for summary in summaries {
            let _ = writeln!(
                text,
                "  {name:<20} recall@{0:<2} {1:.4}   NDCG@{0:<2} {2:.4}",
                summary.cutoff, summary.recall, summary.ndcg
            );
        }
    };
    let name = match kind {
        RecommenderKind::Micro => "MICRO",
        other => other.word(),
    };
    rows(name, &report.test);
    if kind != RecommenderKind::Popularity {
        rows("popularity", &report.popularity);
    }
    text
}

#[derive(Serialize)]
struct Evaluated {
    model: RecommenderKind,
    users: usize,
    items: usize,
    /// On all test items.
    lists: Vec<RankingIntervals>,
    /// On test items that somebody trained on, over the users who have such.
    warm: Vec<RankingIntervals>,
    /// On test items that nobody trained on.
    cold: Vec<RankingIntervals>,
}

/// Judges a saved ranking model on the test interactions, with intervals over users.
pub fn evaluate(session: &Session, folder: Option<&Path>) -> anyhow::Result<()> {
    let config = &session.config;
    let folder = folder.unwrap_or(&config.models.ranking);
    let device = &session.devices()?.frozen;
    let watcher = session.output.watcher();
    let ground = ground(session, &watcher)?;
    let ranking = AnyRanking::open(&ground, folder, device)?;
    let training = &config.ranking.training;
    let excluded = masks(&ground.split, training.mask_validation);
    let judge = |relevant: &Interactions| {
        let vectors = &ranking.embeddings;
        let options = training.ranking();
        let scores = evaluate_embeddings(
            &vectors.users,
            &vectors.items,
            &excluded,
            relevant,
            &options,
        );
        ranking_intervals(&scores, &config.evaluation.intervals)
    };
    let (warm, cold) = ground.split.test.warm_and_cold(&ground.split.train);
    let evaluated = Evaluated {
        model: ranking.kind,
        users: ground.users.len(),
        items: ground.item_ids.len(),
        lists: judge(&ground.split.test),
        warm: judge(&warm),
        cold: judge(&cold),
    };
    let mut text = format!(
        "{}: {}, {} users, {} items\n",
        folder.display(),
        evaluated.model,
        evaluated.users,
        evaluated.items
    );
    for (name, lists) in [
        ("all items", &evaluated.lists),
        ("warm items", &evaluated.warm),
        ("cold items", &evaluated.cold),
    ] {
        for list in lists.iter().filter(|list| list.recall.count > 0) {
            let _ = writeln!(
                text,
                "  {name:<10} recall@{0:<2} {1:.4} ({2:.4} … {3:.4})   NDCG@{0:<2} {4:.4} ({5:.4} … {6:.4})   {7} users",
                list.cutoff,
                list.recall.mean,
                list.recall.low,
                list.recall.high,
                list.ndcg.mean,
                list.ndcg.low,
                list.ndcg.high,
                list.recall.count
            );
        }
    }
    session.output.result(text, &evaluated)
}
