//! Scores of all variants as table, numbers and drawing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::super::{by_column, less, mean};
use super::variants::FULL;
use crate::app::config::RunConfig;
use crate::app::exhibition::Columns;
use crate::app::files;
use crate::app::report::intervals;
use crate::app::session::Session;
use crate::evaluation::interval::{Interval, bootstrap};

/// Scores in the order of the table.
const SCORES: [&str; 6] = [
    "both@1",
    "style@1",
    "glyph@1",
    "rank_change",
    "reward",
    "image_similarity",
];

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

/// Writes `ablation.json`, `.md` and `.svg` to `out`; `results` are group, name and the scores of each seed.
pub(super) fn write(
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
                .insert(key, values.iter().map(|v| mean(v)).collect());
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
    let text = table(&study) + &table_of_seeds(&study);
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

impl Ablation {
    /// The scores that there are.
    fn shown(&self) -> Vec<&'static str> {
        let known = |score: &&str| self.rows[0].scores.contains_key(*score);
        SCORES.into_iter().filter(known).collect()
    }
}

fn heading(shown: &[&str]) -> String {
    let columns = shown.len();
    format!(
        "| variant | {} |\n|---|{}\n",
        shown.join(" | "),
        "---|".repeat(columns)
    )
}

/// How far trainings of one variant lie apart; nothing where there is one of each.
fn table_of_seeds(study: &Ablation) -> String {
    if study.seeds < 2 {
        return String::new();
    }
    let shown = study.shown();
    let mut text = format!("\nThe mean of each seed:\n\n{}", heading(&shown));
    for row in &study.rows {
        let _ = write!(text, "| {} |", row.variant);
        for score in &shown {
            let seeds = row.of_seeds[*score].iter();
            let seeds: Vec<String> = seeds.map(|mean| format!("{mean:.4}")).collect();
            let _ = write!(text, " {} |", seeds.join(", "));
        }
        text.push('\n');
    }
    text
}

fn table(study: &Ablation) -> String {
    let mut text = format!(
        "{} test users, {} seeds, {} steps of {} users. In brackets the difference to the method as configured, user by \
         user, with its 95 % interval; bold where it excludes zero.\n\n",
        study.users, study.seeds, study.steps, study.batch_size
    );
    let shown = study.shown();
    text += &heading(&shown);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_is_shown_where_there_are_several() {
        let of = |variant: &str, seeds: &[f64]| {
            let mean = bootstrap(seeds, &Default::default());
            let scores = BTreeMap::from([("style@1".to_string(), mean)]);
            Row {
                group: String::new(),
                variant: variant.into(),
                differences: scores.clone(),
                scores,
                of_seeds: BTreeMap::from([("style@1".to_string(), seeds.to_vec())]),
            }
        };
        let mut study = Ablation {
            users: 2,
            seeds: 2,
            steps: 5,
            batch_size: 3,
            rows: vec![of(FULL, &[0.25, 0.5]), of("n = 1", &[0.5, 0.125])],
        };
        let expected = "\nThe mean of each seed:\n\n\
            | variant | style@1 |\n\
            |---|---|\n\
            | as configured | 0.2500, 0.5000 |\n\
            | n = 1 | 0.5000, 0.1250 |\n";
        assert_eq!(table_of_seeds(&study), expected);
        assert!(table(&study).contains("| variant | style@1 |\n|---|---|\n"));
        study.seeds = 1;
        assert_eq!(table_of_seeds(&study), "");
    }
}
