//! `ragar study judge`: does the ranking model prefer the right answer, and how much could a reward gain at all?
//!
//! On the stickers the right answer is known: the reference's glyph in the style this user likes for its group. All
//! drawings of that glyph and all pictures of the catalogue are judged in the reference's place, as generated pictures
//! are. The right answers were kept from the ranking model's training.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use burn::tensor::{Tensor, TensorData};
use serde::Serialize;

use crate::app::assembly::{DataSet, Eyes, Ranking, features};
use crate::app::backend::Backend;
use crate::app::session::Session;
use crate::data::history::Split;
use crate::data::stickers::Sticker;
use crate::evaluation::interval::{BootstrapOptions, Interval, bootstrap};
use crate::evaluation::ranking::rank_change;
use crate::reflection::discriminator::{Case, Discriminator as _};
use crate::reflection::reward::Judgement;

#[derive(Serialize)]
struct Row {
    model: PathBuf,
    epochs: usize,
    best_epoch: usize,
    /// ΔR of the right answer's own picture.
    right: Interval,
    /// ΔR of the drawing of the same glyph that the model likes best.
    best_style: Interval,
    /// ΔR of the picture of the catalogue that the model likes best: nothing real earns more.
    best_picture: Interval,
    /// 1 where no other drawing of the glyph scores as high as the right one.
    first: Interval,
    /// `first` of a judge that chooses by chance.
    chance: f64,
    /// Share of the glyph's other drawings that score below the right one; 0.5 by chance.
    above: Interval,
    /// Score of the right answer less that of the reference's own picture, in deviations of the scores that the user
    /// gives to all items: models of differently long vectors compare.
    margin: Interval,
}

/// One user's figures.
struct Figures {
    right: f64,
    best_style: f64,
    best_picture: f64,
    first: f64,
    chance: f64,
    above: f64,
    margin: f64,
}

/// Judges the right answers of the first `num_users` test users (0: all) by each of `models`.
pub fn judge(session: &Session, models: &[PathBuf], num_users: usize) -> anyhow::Result<()> {
    let config = &session.config;
    let device = &session.devices()?.frozen;
    let data = DataSet::open(&config.data, session.output)?;
    let stickers = data.stickers().with_context(|| {
        format!(
            "data.folder = \"{}\": the right answers of stickers alone are known; `ragar data stickers` makes such a folder",
            config.data.folder.display()
        )
    })?;
    let watcher = session.output.watcher();
    let eyes = Eyes::open(&config.models, device)?;
    let pictures = features::pictures(&data, config)?;
    let store = features::store(config);
    let batch_size = config.features.batch_size;
    let visual = eyes
        .visual()
        .embeddings(&pictures, batch_size, &store, &watcher)?;

    let configured = [config.models.ranking.clone()];
    let models = if models.is_empty() {
        &configured[..]
    } else {
        models
    };
    let mut rows = Vec::new();
    for folder in models {
        let ranking = Ranking::open(config, &data, &eyes, folder, device, &watcher)?;
        let figures = figures(&data, &stickers.stickers, &ranking, &visual, num_users)?;
        rows.push(row(
            folder,
            &ranking,
            &figures,
            &config.evaluation.intervals,
        ));
    }
    let text = table(&rows);
    session.output.result(text, &rows)
}

fn figures(
    data: &DataSet,
    stickers: &[Sticker],
    ranking: &Ranking,
    visual: &[Vec<f32>],
    num_users: usize,
) -> anyhow::Result<Vec<Figures>> {
    let judge = &ranking.discriminator;
    let width = visual.first().map_or(0, Vec::len);
    let device = judge.stages().items.device();
    let every = TensorData::new(visual.concat(), [visual.len(), width]);
    let every = Tensor::<Backend, 2>::from_data(every, &device);

    let mut figures = Vec::new();
    for history in data.users(Split::Test, num_users) {
        let (Some(target), Some(user)) = (history.target, ranking.user(&history.user)) else {
            continue;
        };
        if !judge.covers(history.reference) {
            continue;
        }
        let case = Case {
            user,
            reference: history.reference,
        };
        let own = judge.judge_references(&[case])[0];
        let judged = judge.judge(user, history.reference, every.clone());
        let glyph = &stickers[target].glyph;
        let others: Vec<Judgement> = stickers
            .iter()
            .zip(&judged)
            .enumerate()
            .filter(|(place, (sticker, _))| sticker.glyph == *glyph && *place != target)
            .map(|(_, (_, judgement))| *judgement)
            .collect();
        let right = judged[target];
        if others.is_empty() {
            continue;
        }
        let below = others.iter().filter(|j| j.score < right.score).count();
        let best = |judged: &[Judgement]| {
            let ranks = judged.iter().map(|judgement| judgement.rank);
            rank_change(own.rank, ranks.min().unwrap_or(own.rank))
        };
        figures.push(Figures {
            right: rank_change(own.rank, right.rank),
            best_style: best(&others).max(rank_change(own.rank, right.rank)),
            best_picture: best(&judged),
            first: f64::from(u8::from(below == others.len())),
            chance: 1.0 / (others.len() + 1) as f64,
            above: below as f64 / others.len() as f64,
            margin: f64::from(right.score - own.score) / deviation(&judge.model().scores(user)),
        });
    }
    anyhow::ensure!(
        !figures.is_empty(),
        "no user of split \"test\" has a known right answer and a reference that the ranking model knows"
    );
    Ok(figures)
}

/// Never 0, so that a model that has learned nothing divides.
fn deviation(scores: &[f32]) -> f64 {
    let count = scores.len().max(1) as f64;
    let mean = scores.iter().map(|s| f64::from(*s)).sum::<f64>() / count;
    let squares = scores.iter().map(|s| (f64::from(*s) - mean).powi(2));
    (squares.sum::<f64>() / count).sqrt().max(1e-12)
}

fn row(folder: &Path, ranking: &Ranking, figures: &[Figures], options: &BootstrapOptions) -> Row {
    let over_users = |value: fn(&Figures) -> f64| {
        let values: Vec<f64> = figures.iter().map(value).collect();
        bootstrap(&values, options)
    };
    Row {
        model: folder.into(),
        epochs: ranking.report.num_epochs,
        best_epoch: ranking.report.best_epoch,
        right: over_users(|f| f.right),
        best_style: over_users(|f| f.best_style),
        best_picture: over_users(|f| f.best_picture),
        first: over_users(|f| f.first),
        chance: figures.iter().map(|f| f.chance).sum::<f64>() / figures.len() as f64,
        above: over_users(|f| f.above),
        margin: over_users(|f| f.margin),
    }
}

fn table(rows: &[Row]) -> String {
    let users = rows.first().map_or(0, |row| row.right.count);
    let mut text = format!(
        "{users} users\n\n| model | best epoch | ΔR of the right answer | of the best style | of the best picture | right first (by chance) | \
         others below | margin |\n|---|---|---|---|---|---|---|---|\n"
    );
    for row in rows {
        let cell = |i: &Interval| format!("{:.3} ({:.3} … {:.3})", i.mean, i.low, i.high);
        let _ = writeln!(
            text,
            "| {} | {} of {} | {} | {} | {} | {} ({:.3}) | {} | {} |",
            row.model.display(),
            row.best_epoch,
            row.epochs,
            cell(&row.right),
            cell(&row.best_style),
            cell(&row.best_picture),
            cell(&row.first),
            row.chance,
            cell(&row.above),
            cell(&row.margin),
        );
    }
    text
}
