//! `ragar rank`: the ranking model alone.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::app::assembly::{DataSet, Eyes, Ranking};
use crate::app::session::Session;
use crate::evaluation::ranking::{RankingIntervals, ranking_intervals};
use crate::optimisation::Interrupt;
use crate::recommender::rank::RankingOptions;
use crate::training::recommender::{RankingSummary, RecommenderReport};

/// The configuration that a ranking model depends on.
const SECTIONS: &[&str] = &["data", "models", "features", "ranking"];

/// Trains MICRO in `out`, or in `models.ranking`.
pub fn train(session: &Session, out: Option<&Path>) -> anyhow::Result<()> {
    let config = &session.config;
    let folder = out.unwrap_or(&config.models.ranking);
    let devices = session.devices()?;
    let data = DataSet::open(&config.data, session.output)?;
    let eyes = Eyes::open(&config.models, &devices.frozen)?;
    let watcher = session.output.watcher();
    let interrupt = Interrupt::install();
    config.save(folder, "rank train", SECTIONS)?;
    let ranking = Ranking::train(config, &data, &eyes, folder, &devices, &watcher, &interrupt)?;
    let report = &ranking.report;
    let text = format!(
        "{}: {} epochs, the best was {}\n{}",
        folder.display(),
        report.num_epochs,
        report.best_epoch,
        table(report)
    );
    session.output.result(text, report)
}

fn table(report: &RecommenderReport) -> String {
    let mut text = String::new();
    let mut rows = |name: &str, summaries: &[RankingSummary]| {
        for summary in summaries {
            let _ = writeln!(
                text,
                "  {name:<12} recall@{0} {1:.4}   NDCG@{0} {2:.4}",
                summary.cutoff, summary.recall, summary.ndcg
            );
        }
    };
    rows("MICRO", &report.test);
    rows("popularity", &report.popularity);
    text
}

#[derive(Serialize)]
struct Evaluated {
    users: usize,
    items: usize,
    lists: Vec<RankingIntervals>,
}

/// Judges a saved ranking model on the test interactions, with intervals over users.
pub fn evaluate(session: &Session, folder: Option<&Path>) -> anyhow::Result<()> {
    let config = &session.config;
    let folder = folder.unwrap_or(&config.models.ranking);
    let device = &session.devices()?.frozen;
    let data = DataSet::open(&config.data, session.output)?;
    let eyes = Eyes::open(&config.models, device)?;
    let watcher = session.output.watcher();
    let ranking = Ranking::open(config, &data, &eyes, folder, device, &watcher)?;
    let model = ranking.discriminator.model();
    let training = &config.ranking.training;
    let options = RankingOptions {
        cutoffs: training.cutoffs.clone(),
        ndcg: training.ndcg,
    };
    let scores = model.evaluate(&ranking.split.test, &options);
    let evaluated = Evaluated {
        users: model.history().num_users(),
        items: model.history().num_items(),
        lists: ranking_intervals(&scores, &config.evaluation.intervals),
    };
    let mut text = format!(
        "{}: {} users, {} items\n",
        folder.display(),
        evaluated.users,
        evaluated.items
    );
    for list in &evaluated.lists {
        let _ = writeln!(
            text,
            "  recall@{0} {1:.4} ({2:.4} … {3:.4})   NDCG@{0} {4:.4} ({5:.4} … {6:.4})",
            list.cutoff,
            list.recall.mean,
            list.recall.low,
            list.recall.high,
            list.ndcg.mean,
            list.ndcg.low,
            list.ndcg.high
        );
    }
    session.output.result(text, &evaluated)
}
