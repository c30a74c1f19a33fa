//! `ragar rank score`: pictures ranked for a user in an item's place.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use burn::tensor::{Tensor, TensorData};
use serde::Serialize;

use crate::app::assembly::{DataSet, Eyes, Ranking, features};
use crate::app::backend::Backend;
use crate::app::failure::Usage;
use crate::app::session::Session;
use crate::features::Picture;
use crate::reflection::discriminator::{Case, Discriminator as _};

/// File names that a folder of candidates is searched for.
const ENDINGS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

#[derive(Serialize)]
struct Scored<'a> {
    user: &'a str,
    /// The item in whose place the pictures stand.
    reference: &'a str,
    /// Its own picture's score and rank.
    reference_score: f32,
    reference_rank: usize,
    items: usize,
    /// The best first.
    pictures: Vec<ScoredPicture>,
    /// Candidates judged in a second, embedding aside.
    per_second: f64,
}

#[derive(Serialize)]
struct ScoredPicture {
    file: PathBuf,
    score: f32,
    /// 1 + the number of items outside the user's training history that score higher.
    rank: usize,
}

/// Ranks `images`, files or folders of such, for `user` in the place of `reference` (the user's own reference
/// where none is named).
pub fn score(
    session: &Session,
    folder: Option<&Path>,
    user: &str,
    reference: Option<&str>,
    images: &[PathBuf],
) -> anyhow::Result<()> {
    let config = &session.config;
    let folder = folder.unwrap_or(&config.models.ranking);
    let files = pictures_of(images)?;
    let device = &session.devices()?.frozen;
    let watcher = session.output.watcher();
    let data = DataSet::open(&config.data, session.output)?;
    let eyes = Eyes::open(&config.models, device)?;
    let ranking = Ranking::open(config, &data, &eyes, folder, device, &watcher)?;
    let row = ranking.user(user).with_context(|| {
        format!("user {user} is unknown to the ranking model: interactions.csv has no line of it")
    })?;
    let catalogue = &data.folder().catalogue;
    let reference = match reference {
        Some(id) => catalogue
            .position(id)
            .with_context(|| format!("there is no item `{id}` in items.csv"))?,
        None => {
            let history = data.folder().history_of(user);
            history
                .map_err(|error| Usage(format!("{error}; name an item with --reference")))?
                .reference
        }
    };
    anyhow::ensure!(
        ranking.discriminator.covers(reference),
        "item {} was kept from the ranking model: name another with --reference",
        catalogue[reference].id
    );

    let pictures = files
        .iter()
        .map(|file| Picture::open(file, &config.data.image_limits))
        .collect::<Result<Vec<_>, _>>()?;
    let store = features::store(config);
    let batch_size = config.features.batch_size;
    let embeddings = eyes
        .visual()
        .embeddings(&pictures, batch_size, &store, &watcher)?;
    let width = embeddings.first().map_or(0, Vec::len);
    let rows = TensorData::new(embeddings.concat(), [embeddings.len(), width]);
    let rows = Tensor::<Backend, 2>::from_data(rows, device);

    let judge = &ranking.discriminator;
    let own = judge.judge_references(&[Case {
        user: row,
        reference,
    }])[0];
    let started = Instant::now();
    let judgements = judge.judge(row, reference, rows);
    let seconds = started.elapsed().as_secs_f64();
    let mut pictures: Vec<ScoredPicture> = files
        .into_iter()
        .zip(judgements)
        .map(|(file, judgement)| ScoredPicture {
            file,
            score: judgement.score,
            rank: judgement.rank,
        })
        .collect();
    let count = pictures.len() as f64;
    // Stable: equal scores keep the order in which they were named.
    pictures.sort_by(|a, b| b.score.total_cmp(&a.score));
    let scored = Scored {
        user,
        reference: &catalogue[reference].id,
        reference_score: own.score,
        reference_rank: own.rank,
        items: ranking.items.len(),
        pictures,
        per_second: count / seconds.max(1e-9),
    };
    session.output.result(table(&scored), &scored)
}

fn table(scored: &Scored<'_>) -> String {
    let mut text = format!(
        "{} in the place of {}: its own picture scores {:.4}, rank {} of {}\n",
        scored.user, scored.reference, scored.reference_score, scored.reference_rank, scored.items
    );
    for picture in &scored.pictures {
        let _ = writeln!(
            text,
            "  {:>9.4}  rank {:>5}  {}",
            picture.score,
            picture.rank,
            picture.file.display()
        );
    }
    text
}

/// The named files, and those of the named folders by name.
fn pictures_of(images: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in images {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries =
            std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| {
                let ending = path.extension().and_then(|ending| ending.to_str());
                ending.is_some_and(|e| ENDINGS.contains(&e.to_lowercase().as_str()))
            })
            .collect();
        anyhow::ensure!(
            !found.is_empty(),
            "{}: no picture in this folder",
            path.display()
        );
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}
