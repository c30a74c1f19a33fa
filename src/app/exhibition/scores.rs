//! Scores of all methods, with ceilings and floors.

use std::collections::BTreeMap;

use image::RgbImage;

use super::{Exhibition, Visitor, Works};
use crate::app::assembly::StickerJudge;
use crate::app::report::{Metric, RowKind, Score, ScoreRow, ScoreTable};
use crate::evaluation::distance::structural_similarity;
use crate::evaluation::interval::{Interval, bootstrap};
use crate::evaluation::ranking::rank_change;
use crate::evaluation::similarity::{Comparison, Similarities, similarities};
use crate::evaluation::truth::{Bounds, Task, Truth, Verdict};
use crate::optimisation::Progress;
use crate::reflection::reward::Judgement;

/// What the judges said.
pub struct Judged {
    /// Ranks of the references themselves.
    pub references: Vec<Judgement>,
    /// Scores and ranks of the targets' own pictures, where every visitor has one.
    pub targets: Option<Vec<Judgement>>,
    /// Style and glyph, where the truth is known.
    pub truth: Option<Verdicts>,
}

/// Verdicts per method and of the bounds.
pub struct Verdicts {
    /// A list per method, a verdict per visitor.
    pub methods: Vec<Vec<Verdict>>,
    /// Ceiling and floors.
    pub bounds: Bounds,
    /// How style and glyph were named.
    pub method: String,
}

/// Judges references, targets, and every method's works.
///
/// # Errors
/// When labels and embeddings do not match.
pub fn judge(
    exhibition: &Exhibition<'_>,
    visitors: &[Visitor<'_>],
    works: &[Works],
    progress: &dyn Progress,
) -> anyhow::Result<Judged> {
    let embedding = |item: usize| exhibition.items.visual[item].clone();
    let references: Vec<Vec<f32>> = visitors
        .iter()
        .map(|visitor| embedding(visitor.sample.reference))
        .collect();
    let targets: Option<Vec<Vec<f32>>> = visitors
        .iter()
        .map(|visitor| visitor.history.target.map(embedding))
        .collect();
    Ok(Judged {
        references: exhibition.judge(visitors, &references),
        targets: targets.map(|targets| exhibition.judge(visitors, &targets)),
        truth: verdicts(exhibition, visitors, works, progress)?,
    })
}

fn verdicts(
    exhibition: &Exhibition<'_>,
    visitors: &[Visitor<'_>],
    works: &[Works],
    progress: &dyn Progress,
) -> anyhow::Result<Option<Verdicts>> {
    let judge = StickerJudge::open(
        exhibition.config,
        &exhibition.workshop.data,
        &exhibition.items.visual,
        &exhibition.workshop.devices.frozen,
        progress,
    )?;
    let Some(judge) = judge else {
        return Ok(None);
    };
    let tasks: Option<Vec<Task>> = visitors
        .iter()
        .map(|visitor| {
            Some(Task {
                history: visitor.history.history.clone(),
                reference: visitor.sample.reference,
                target: visitor.history.target?,
            })
        })
        .collect();
    let Some(tasks) = tasks else {
        return Ok(None);
    };
    let truths: Vec<Truth> = tasks.iter().map(|task| judge.shows(task.target)).collect();
    let methods = works
        .iter()
        .map(|works| {
            let pictures: Vec<&RgbImage> = works.pictures.iter().collect();
            let named = judge.name(&pictures, &works.embeddings);
            let pairs = named.iter().zip(&truths);
            pairs.map(|(named, truth)| named.verdict(*truth)).collect()
        })
        .collect();
    Ok(Some(Verdicts {
        methods,
        bounds: judge.bounds(&tasks, exhibition.config.evaluation.seed)?,
        method: judge.method(),
    }))
}

impl From<Interval> for Score {
    fn from(interval: Interval) -> Self {
        Self {
            mean: interval.mean,
            low: interval.low,
            high: interval.high,
            count: interval.count,
        }
    }
}

/// The tables of the report.
pub fn tables(
    exhibition: &Exhibition<'_>,
    visitors: &[Visitor<'_>],
    works: &[Works],
    judged: &Judged,
) -> Vec<ScoreTable> {
    let mut tables = vec![main_table(exhibition, works, judged)];
    tables.push(similarity_table(exhibition, visitors, works));
    tables
}

/// A row under construction.
struct Row<'a> {
    exhibition: &'a Exhibition<'a>,
    row: ScoreRow,
}

impl<'a> Row<'a> {
    fn new(exhibition: &'a Exhibition<'a>, name: &str, kind: RowKind) -> Self {
        Self {
            exhibition,
            row: ScoreRow {
                name: name.to_string(),
                kind,
                scores: BTreeMap::new(),
            },
        }
    }

    fn values(mut self, key: &str, values: &[f64]) -> Self {
        if !values.is_empty() {
            let interval = bootstrap(values, &self.exhibition.config.evaluation.intervals);
            self.row.scores.insert(key.to_string(), interval.into());
        }
        self
    }

    fn verdicts(self, verdicts: &[Verdict]) -> Self {
        let share = |right: fn(&Verdict) -> bool| -> Vec<f64> {
            verdicts
                .iter()
                .map(|v| f64::from(u8::from(right(v))))
                .collect()
        };
        self.values("style@1", &share(|v| v.style))
            .values("glyph@1", &share(|v| v.glyph))
            .values("glyph@5", &share(|v| v.glyph_in_five))
            .values("both@1", &share(|v| v.both))
    }

    fn ranks(self, references: &[Judgement], drawn: &[Judgement]) -> Self {
        let changes: Vec<f64> = references
            .iter()
            .zip(drawn)
            .map(|(reference, drawn)| rank_change(reference.rank, drawn.rank))
            .collect();
        self.values("ΔR", &changes)
    }
}

/// Style, glyph, both, and what the ranking model says.
fn main_table(exhibition: &Exhibition<'_>, works: &[Works], judged: &Judged) -> ScoreTable {
    let mut rows = Vec::new();
    let truth = judged.truth.as_ref();
    if let Some(targets) = &judged.targets {
        let mut row = Row::new(
            exhibition,
            "The right answer's own picture",
            RowKind::Ceiling,
        )
        .ranks(&judged.references, targets);
        if let Some(truth) = truth {
            row = row.verdicts(&truth.bounds.ceiling);
        }
        rows.push(row.row);
    }
    // The last one drawn is the method itself: it stands first.
    for (number, method) in works.iter().enumerate().rev() {
        let mut row = Row::new(exhibition, method.name, RowKind::Method)
            .ranks(&judged.references, &method.judgements);
        if let Some(truth) = truth {
            row = row.verdicts(&truth.methods[number]);
        }
        rows.push(row.row);
    }
    let mut unchanged = Row::new(exhibition, "The reference, unchanged", RowKind::Floor)
        .ranks(&judged.references, &judged.references);
    if let Some(truth) = truth {
        unchanged = unchanged.verdicts(&truth.bounds.reference);
    }
    rows.push(unchanged.row);
    if let Some(truth) = truth {
        for (name, verdicts) in [
            ("A random history item", &truth.bounds.random_history),
            (
                "The nearest item of the catalogue",
                &truth.bounds.nearest_item,
            ),
        ] {
            let row = Row::new(exhibition, name, RowKind::Floor).verdicts(verdicts);
            rows.push(row.row);
        }
    }
    let metrics = match truth {
        Some(_) => ["style@1", "glyph@1", "glyph@5", "both@1", "ΔR"]
            .map(Metric::higher)
            .to_vec(),
        None => vec![Metric::higher("ΔR")],
    };
    ScoreTable {
        title: match truth {
            Some(_) => "Right style, right glyph".into(),
            None => "What the ranking model says".into(),
        },
        note: format!(
            "{} ΔR: (rank of the reference − rank of the drawing) / rank of the reference, in the ranking model's list \
            for the user. Means over users with 95 % bootstrap intervals.",
            truth.map_or("", |truth| truth.method.as_str())
        ),
        metrics,
        rows,
    }
}

/// Similarities to the user and to the reference.
fn similarity_table(
    exhibition: &Exhibition<'_>,
    visitors: &[Visitor<'_>],
    works: &[Works],
) -> ScoreTable {
    let catalogue = &exhibition.workshop.data.folder().catalogue;
    let visual = &exhibition.items.visual;
    let tastes: Vec<&str> = visitors
        .iter()
        .map(|visitor| visitor.sample.summary.as_str())
        .collect();
    let texts: Vec<&str> = visitors
        .iter()
        .map(|visitor| catalogue[visitor.sample.reference].text.as_str())
        .collect();
    let semantic = exhibition.workshop.eyes.semantic();
    let encode = |texts: &[&str]| -> Vec<Vec<f32>> {
        texts
            .chunks(64)
            .flat_map(|batch| semantic.encode(batch))
            .collect()
    };
    let (tastes, texts) = (encode(&tastes), encode(&texts));
    let compare = |place: usize, embedding: &[f32]| -> Similarities {
        let visitor = &visitors[place];
        let history: Vec<Vec<f32>> = visitor
            .history
            .history
            .iter()
            .map(|item| visual[*item].clone())
            .collect();
        similarities(
            embedding,
            &Comparison {
                preference_text: &tastes[place],
                history_images: &history,
                reference_text: &texts[place],
                reference_image: &visual[visitor.sample.reference],
            },
        )
    };
    let row = |name: &str, kind, embeddings: &[&[f32]], structure: &[f64]| {
        let all: Vec<Similarities> = embeddings
            .iter()
            .enumerate()
            .map(|(place, embedding)| compare(place, embedding))
            .collect();
        let column = |value: fn(&Similarities) -> f64| all.iter().map(value).collect::<Vec<_>>();
        Row::new(exhibition, name, kind)
            .values("CPS", &column(|s| s.preference_text))
            .values("CPIS", &column(|s| s.history_images))
            .values("CS", &column(|s| s.reference_text))
            .values("CIS", &column(|s| s.reference_image))
            .values("SSIM", structure)
            .row
    };
    let mut rows = Vec::new();
    let targets: Option<Vec<&[f32]>> = visitors
        .iter()
        .map(|visitor| Some(visual[visitor.history.target?].as_slice()))
        .collect();
    if let Some(targets) = targets {
        rows.push(row(
            "The right answer's own picture",
            RowKind::Ceiling,
            &targets,
            &[],
        ));
    }
    for method in works.iter().rev() {
        let embeddings: Vec<&[f32]> = method.embeddings.iter().map(Vec::as_slice).collect();
        let structure = structure(exhibition, visitors, method);
        rows.push(row(method.name, RowKind::Method, &embeddings, &structure));
    }
    let references: Vec<&[f32]> = visitors
        .iter()
        .map(|visitor| visual[visitor.sample.reference].as_slice())
        .collect();
    rows.push(row(
        "The reference, unchanged",
        RowKind::Floor,
        &references,
        &[],
    ));
    let metrics = ["CPS", "CPIS", "CS", "CIS"].map(|key| Metric {
        digits: 1,
        ..Metric::higher(key)
    });
    ScoreTable {
        title: "Similarity to the user and to the reference".into(),
        note: "100 · cosine in CLIP's space, of the drawing with: the words of the user's taste (CPS), the history's pictures (CPIS), the \
            reference's text (CS), the reference's picture (CIS). SSIM: structural similarity to the right answer's picture where there is \
            one, else to the reference. Similarity to the reference is no aim by itself: the unchanged reference has most of it."
            .into(),
        metrics: metrics.into_iter().chain([Metric::higher("SSIM")]).collect(),
        rows,
    }
}

/// Structural similarity of each work to the target, or to the reference where there is no target.
fn structure(exhibition: &Exhibition<'_>, visitors: &[Visitor<'_>], works: &Works) -> Vec<f64> {
    let planes = |picture: &image::RgbImage| -> Vec<f32> {
        let raw = picture.as_raw();
        (0..3)
            .flat_map(|channel| {
                raw[channel..]
                    .iter()
                    .step_by(3)
                    .map(|value| f32::from(*value))
            })
            .collect()
    };
    visitors
        .iter()
        .zip(&works.pictures)
        .filter_map(|(visitor, drawn)| {
            let item = visitor.history.target.unwrap_or(visitor.sample.reference);
            let truth = exhibition.workshop.data.picture(item).ok()?;
            let (width, height) = drawn.dimensions();
            let filter = image::imageops::FilterType::CatmullRom;
            let truth = image::imageops::resize(&truth, width, height, filter);
            let shape = [3, height as usize, width as usize];
            structural_similarity(&planes(drawn), &planes(&truth), shape, 255.0).ok()
        })
        .collect()
}
