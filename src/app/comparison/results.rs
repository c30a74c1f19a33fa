//! Scores of all methods on all users, and what they say side by side.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::app::report::{Metric as Column, RowKind, Score, ScoreRow, ScoreTable};
use crate::baselines::MethodKind;
use crate::evaluation::interval::{BootstrapOptions, bootstrap_groups};
use crate::evaluation::metric::{Metric, Question, Scores};
use crate::evaluation::paired::{PairedComparison, compare_paired_groups};

/// A picture that could not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The user.
    pub user: String,
    /// The seed.
    pub seed: u64,
    /// Why.
    pub reason: String,
}

/// One method, judged.
#[derive(Debug, Clone, Serialize)]
pub struct MethodResult {
    /// The word on the command line.
    pub name: String,
    /// The name in tables.
    pub label: String,
    /// Does it compete?
    pub kind: RowKind,
    /// A row per user, each the mean over the user's pictures; empty where none could be drawn.
    pub scores: Vec<Scores>,
    /// Pictures judged.
    pub num_pictures: usize,
    /// Pictures that could not be drawn.
    pub failures: Vec<Failure>,
    /// 100 · the Fréchet distance from all pictures of the catalogue, in CLIP's space of unit vectors.
    pub frechet: Option<f64>,
    /// The same of Inception's features, not scaled: FID, where `evaluation.inception` names the network.
    pub fid: Option<f64>,
}

/// A difference between two methods.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// The method under test.
    pub first: String,
    /// The other one.
    pub second: String,
    /// What was measured.
    pub metric: Metric,
    /// First less second, on the users that both have a value for.
    #[serde(flatten)]
    pub compared: PairedComparison,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    /// The users, in the order of every list of scores.
    pub users: Vec<String>,
    /// Their references' ids.
    pub references: Vec<String>,
    /// Which users intervals and tests take together: equal numbers.
    pub groups: Vec<usize>,
    /// How style and glyph were named; empty where nobody knows the right answers.
    pub named_by: String,
    /// Seeds drawn from.
    pub seeds: Vec<u64>,
    /// The methods, in the order asked for; the targets' own pictures first, where they are known.
    pub methods: Vec<MethodResult>,
    /// The main method against each of the others.
    pub differences: Vec<Difference>,
}

impl From<MethodKind> for RowKind {
    fn from(kind: MethodKind) -> Self {
        match kind {
            MethodKind::Contender => Self::Method,
            MethodKind::Ceiling => Self::Ceiling,
            MethodKind::Floor => Self::Floor,
        }
    }
}

impl MethodResult {
    /// One metric, a value per user.
    pub fn column(&self, metric: Metric) -> Vec<Option<f64>> {
        self.scores
            .iter()
            .map(|scores| scores.get(&metric).copied())
            .collect()
    }
}

impl Results {
    /// The method that is compared with all others: RAGAR, or the last that competes.
    pub fn main(&self) -> Option<&MethodResult> {
        let competing = || self.methods.iter().filter(|m| m.kind == RowKind::Method);
        competing()
            .find(|method| method.name == "ragar")
            .or_else(|| competing().next_back())
    }

    /// Fills `differences`: the main method less each other one, metric by metric.
    pub fn compare(&mut self, options: &BootstrapOptions) {
        let Some(main) = self.main().cloned() else {
            return;
        };
        let groups = &self.groups;
        let others = self.methods.iter().filter(|other| other.name != main.name);
        self.differences = others
            .flat_map(|other| {
                let main = &main;
                Metric::ALL.into_iter().filter_map(move |metric| {
                    let (first, second) = (main.column(metric), other.column(metric));
                    let compared = compare_paired_groups(&first, &second, groups, options);
                    (compared.difference.count > 0).then(|| Difference {
                        first: main.label.clone(),
                        second: other.label.clone(),
                        metric,
                        compared,
                    })
                })
            })
            .collect();
    }

    /// A table per question, one of sets of pictures, one of differences.
    pub fn tables(&self, options: &BootstrapOptions) -> Vec<ScoreTable> {
        let mut tables: Vec<ScoreTable> = [
            (
                Question::Truth,
                "Is it the right answer?",
                "CIS: 100 · cosine with the target's picture; LPIPS and SSIM to it, × 100.",
            ),
            (
                Question::Ranking,
                "What does the ranking model say?",
                "ΔR: (rank of the reference − rank of the drawing) / rank of the reference, in the ranking model's list for the user.",
            ),
            (
                Question::Personalisation,
                "Does it suit the user?",
                "CPS: 100 · cosine with the text of the user's preference. CPIS, LPIPS, SSIM: means over the history's pictures, × 100.",
            ),
            (
                Question::Semantics,
                "Does it still show the item?",
                "CS and CIS: 100 · cosine with the reference's text and picture. LPIPS and SSIM: to the reference's picture, × 100. The unchanged reference has most of it.",
            ),
        ]
        .into_iter()
        .filter_map(|(question, title, note)| self.table(question, title, note, options))
        .collect();
        tables.push(self.sets());
        tables.extend(self.difference_table());
        tables
    }

    fn table(
        &self,
        question: Question,
        title: &str,
        note: &str,
        options: &BootstrapOptions,
    ) -> Option<ScoreTable> {
        let mut metrics: Vec<Metric> = Metric::ALL.to_vec();
        metrics.retain(|metric| {
            let known = |method: &MethodResult| method.column(*metric).iter().any(Option::is_some);
            metric.question() == question && self.methods.iter().any(known)
        });
        let rows = self.methods.iter().map(|method| ScoreRow {
            name: method.label.clone(),
            kind: method.kind,
            scores: metrics
                .iter()
                .filter_map(|metric| {
                    let column = method.column(*metric).into_iter().zip(&self.groups);
                    let (values, groups): (Vec<f64>, Vec<usize>) = column
                        .filter_map(|(value, group)| Some((value?, *group)))
                        .unzip();
                    let score = bootstrap_groups(&values, &groups, options);
                    (score.count > 0).then(|| (metric.key().to_string(), score.into()))
                })
                .collect(),
        });
        let means = format!(
            "Means over users with bootstrap intervals{}.",
            self.together()
        );
        (!metrics.is_empty()).then(|| ScoreTable {
            title: title.into(),
            note: match question {
                Question::Truth => format!("{} {note} {means}", self.named_by),
                _ => format!("{note} {means}"),
            },
            metrics: metrics.iter().map(|metric| column(*metric)).collect(),
            rows: rows.collect(),
        })
    }

    /// What the tables say of users that are drawn together.
    fn together(&self) -> String {
        let distinct: BTreeSet<&usize> = self.groups.iter().collect();
        match distinct.len() == self.users.len() {
            true => String::new(),
            false => format!(
                " over {} groups of users who share a reference, drawn together",
                distinct.len()
            ),
        }
    }

    /// What is known of a method's pictures together.
    fn sets(&self) -> ScoreTable {
        let whole = |value: f64, count: usize| Score {
            mean: value,
            low: value,
            high: value,
            count,
        };
        let rows = self.methods.iter().map(|method| {
            let count = method.num_pictures;
            let mut scores = BTreeMap::from([
                ("pictures".to_string(), whole(count as f64, count)),
                (
                    "failed".to_string(),
                    whole(method.failures.len() as f64, count),
                ),
            ]);
            if let Some(distance) = method.frechet {
                scores.insert("CLIP-FID".into(), whole(distance, count));
            }
            if let Some(distance) = method.fid {
                scores.insert("FID".into(), whole(distance, count));
            }
            ScoreRow {
                name: method.label.clone(),
                kind: method.kind,
                scores,
            }
        });
        let plain = |key: &str, higher: bool, digits: usize| Column {
            digits,
            higher_is_better: higher,
            ..Column::higher(key)
        };
        ScoreTable {
            title: "Pictures".into(),
            note: "Pictures judged, and those that a method failed to draw, which no mean above holds. CLIP-FID: 100 · Fréchet distance from all pictures of the catalogue in CLIP's space of unit vectors; it falls with the number of pictures, so compare equal numbers only, and never with FID of Inception.".into(),
            metrics: [
                plain("pictures", true, 0),
                plain("failed", false, 0),
                plain("CLIP-FID", false, 2),
                plain("FID", false, 2),
            ]
            .into_iter()
            .filter(|column| column.key != "FID" || self.methods.iter().any(|m| m.fid.is_some()))
            .collect(),
            rows: rows.collect(),
        }
    }

    fn difference_table(&self) -> Option<ScoreTable> {
        let main = self.main()?;
        let shown = [
            Metric::Both,
            Metric::Style,
            Metric::Glyph,
            Metric::RankChange,
            Metric::PreferenceText,
            Metric::HistoryImages,
            Metric::ReferenceText,
            Metric::ReferenceImage,
        ];
        let of = |metric: Metric, other: &str| {
            let mut all = self.differences.iter();
            all.find(move |d| d.metric == metric && d.second == other)
        };
        let others = self.methods.iter().filter(|m| m.name != main.name);
        let rows: Vec<ScoreRow> = others
            .map(|other| ScoreRow {
                name: format!("{} − {}", main.label, other.label),
                kind: other.kind,
                scores: shown
                    .iter()
                    .filter_map(|metric| {
                        let found = of(*metric, &other.label)?;
                        let score = found.compared.difference.into();
                        Some((metric.key().to_string(), score))
                    })
                    .collect(),
            })
            .collect();
        let known = |metric: &&Metric| self.differences.iter().any(|d| d.metric == **metric);
        let metrics: Vec<Column> = shown.iter().filter(known).map(|m| column(*m)).collect();
        (!metrics.is_empty() && !rows.is_empty()).then(|| ScoreTable {
            title: format!("{} against the others, user by user", main.label),
            note: format!("Mean difference on the same users with its bootstrap interval{}; p of the paired permutation test stands in paired.csv. Many comparisons: expect one in twenty below 0.05 by luck.", self.together()),
            metrics,
            rows,
        })
    }
}

fn column(metric: Metric) -> Column {
    Column {
        higher_is_better: metric.higher_is_better(),
        digits: match metric {
            Metric::RankChange
            | Metric::Style
            | Metric::Glyph
            | Metric::GlyphInFive
            | Metric::Both => 2,
            _ => 1,
        },
        ..Column::higher(metric.key())
    }
}
