//! The sticker benchmark's own scores: is the style right, is the glyph right, are both?
//!
//! Everything here works on embeddings of one visual encoder and on labels. A linear classifier, trained on
//! training pairs on the spot, names the style; the nearest real stickers name the glyph. Ceilings and
//! floors are judged by the same judge: a score means little without them.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::interval::{BootstrapOptions, Interval, bootstrap};
use super::similarity::cosine;

/// How the style classifier is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StyleClassifierOptions {
    /// Full passes of Adam.
    pub num_steps: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Weight of half the squared norm of the weights.
    pub l2_weight: f64,
}

impl Default for StyleClassifierOptions {
    fn default() -> Self {
        Self {
            num_steps: 300,
            learning_rate: 0.05,
            l2_weight: 1e-3,
        }
    }
}

/// Labelled embeddings that no classifier can be trained on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TruthError {
    /// Different numbers of embeddings and labels, or none.
    #[error("{embeddings} embeddings with {labels} labels: there must be one each, and some")]
    Count {
        /// Embeddings given.
        embeddings: usize,
        /// Labels given.
        labels: usize,
    },
    /// An embedding of another width.
    #[error("embedding {row} is {found} wide, the others {expected}")]
    Width {
        /// Place of the embedding.
        row: usize,
        /// Width of the first one.
        expected: usize,
        /// Its width.
        found: usize,
    },
}

fn check(embeddings: &[Vec<f32>], num_labels: usize) -> Result<usize, TruthError> {
    if embeddings.is_empty() || embeddings.len() != num_labels {
        return Err(TruthError::Count {
            embeddings: embeddings.len(),
            labels: num_labels,
        });
    }
    let expected = embeddings[0].len();
    match embeddings.iter().position(|row| row.len() != expected) {
        Some(row) => Err(TruthError::Width {
            row,
            expected,
            found: embeddings[row].len(),
        }),
        None => Ok(expected),
    }
}

/// Multinomial logistic regression on standardised embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct StyleClassifier {
    means: Vec<f64>,
    scales: Vec<f64>,
    /// A row of weights and a bias per style.
    weights: Vec<Vec<f64>>,
}

impl StyleClassifier {
    /// Learns to name `styles` (numbered from 0) from `embeddings`. Deterministic.
    ///
    /// # Errors
    /// When embeddings and labels do not match.
    pub fn fit(
        embeddings: &[Vec<f32>],
        styles: &[usize],
        options: &StyleClassifierOptions,
    ) -> Result<Self, TruthError> {
        let width = check(embeddings, styles.len())?;
        let count = embeddings.len() as f64;
        let num_styles = styles.iter().max().map_or(1, |&last| last + 1);
        let mut means = vec![0.0; width];
        let mut squares = vec![0.0; width];
        for row in embeddings {
            for (column, &value) in row.iter().enumerate() {
                means[column] += f64::from(value) / count;
                squares[column] += f64::from(value).powi(2) / count;
            }
        }
        let scales: Vec<f64> = means
            .iter()
            .zip(&squares)
            .map(|(mean, square)| {
                let deviation = (square - mean * mean).max(0.0).sqrt();
                if deviation > 1e-9 {
                    1.0 / deviation
                } else {
                    0.0
                }
            })
            .collect();
        let mut classifier = Self {
            means,
            scales,
            weights: vec![vec![0.0; width + 1]; num_styles],
        };
        let rows: Vec<Vec<f64>> = embeddings
            .iter()
            .map(|row| classifier.standardise(row))
            .collect();
        classifier.descend(&rows, styles, options);
        Ok(classifier)
    }

    /// The style of one embedding.
    pub fn predict(&self, embedding: &[f32]) -> usize {
        let scores = self.scores(&self.standardise(embedding));
        let mut best = 0;
        for (style, &score) in scores.iter().enumerate() {
            if score > scores[best] {
                best = style;
            }
        }
        best
    }

    /// Standardised values and a 1 for the bias.
    fn standardise(&self, embedding: &[f32]) -> Vec<f64> {
        let scaled = embedding
            .iter()
            .zip(self.means.iter().zip(&self.scales))
            .map(|(&value, (mean, scale))| (f64::from(value) - mean) * scale);
        scaled.chain([1.0]).collect()
    }

    fn scores(&self, row: &[f64]) -> Vec<f64> {
        self.weights
            .iter()
            .map(|weights| weights.iter().zip(row).map(|(w, x)| w * x).sum())
            .collect()
    }

    fn descend(&mut self, rows: &[Vec<f64>], styles: &[usize], options: &StyleClassifierOptions) {
        let shape = (self.weights.len(), rows[0].len());
        let zeros = || vec![vec![0.0; shape.1]; shape.0];
        let (mut first, mut second) = (zeros(), zeros());
        for step in 1..=options.num_steps as i32 {
            let gradient = self.gradient(rows, styles, options.l2_weight);
            let correction = (1.0 - 0.999f64.powi(step)).sqrt() / (1.0 - 0.9f64.powi(step));
            let tables = first.iter_mut().zip(&mut second).zip(&gradient);
            for (weights, ((first, second), slopes)) in self.weights.iter_mut().zip(tables) {
                let moments = first.iter_mut().zip(second).zip(slopes);
                for (weight, ((m, v), slope)) in weights.iter_mut().zip(moments) {
                    *m = 0.9 * *m + 0.1 * slope;
                    *v = 0.999 * *v + 0.001 * slope * slope;
                    *weight -= options.learning_rate * correction * *m / (v.sqrt() + 1e-9);
                }
            }
        }
    }

    /// Gradient of the mean cross-entropy and the penalty. Summed chunk by chunk in order, so that the
    /// number of threads does not change it.
    fn gradient(&self, rows: &[Vec<f64>], styles: &[usize], l2_weight: f64) -> Vec<Vec<f64>> {
        let chunks: Vec<Vec<Vec<f64>>> = rows
            .par_chunks(256)
            .zip(styles.par_chunks(256))
            .map(|(rows, styles)| {
                let mut sum = vec![vec![0.0; rows[0].len()]; self.weights.len()];
                for (row, &truth) in rows.iter().zip(styles) {
                    let scores = self.scores(row);
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let powers: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                    let total: f64 = powers.iter().sum();
                    for (style, power) in powers.into_iter().enumerate() {
                        let slope = power / total - f64::from(u8::from(style == truth));
                        for (cell, value) in sum[style].iter_mut().zip(row) {
                            *cell += slope * value;
                        }
                    }
                }
                sum
            })
            .collect();
        let count = rows.len() as f64;
        let mut gradient: Vec<Vec<f64>> = self
            .weights
            .iter()
            .map(|weights| weights.iter().map(|weight| l2_weight * weight).collect())
            .collect();
        for chunk in chunks {
            for (row, part) in gradient.iter_mut().zip(chunk) {
                for (cell, value) in row.iter_mut().zip(part) {
                    *cell += value / count;
                }
            }
        }
        gradient
    }
}

/// Real stickers by which a glyph is recognised.
#[derive(Debug, Clone, PartialEq)]
pub struct GlyphCatalogue {
    embeddings: Vec<Vec<f32>>,
    glyphs: Vec<usize>,
}

impl GlyphCatalogue {
    /// All real stickers, in any style: embeddings and numbered glyphs.
    ///
    /// # Errors
    /// When embeddings and labels do not match.
    pub fn new(embeddings: Vec<Vec<f32>>, glyphs: Vec<usize>) -> Result<Self, TruthError> {
        check(&embeddings, glyphs.len())?;
        Ok(Self { embeddings, glyphs })
    }

    /// The `count` distinct glyphs with the most similar stickers, the most similar first, the lower place
    /// first in a tie. A real sticker is not compared with itself: name its place in `own`.
    pub fn nearest(&self, embedding: &[f32], count: usize, own: Option<usize>) -> Vec<usize> {
        let mut order: Vec<(usize, f64)> = self
            .embeddings
            .iter()
            .enumerate()
            .filter(|&(place, _)| Some(place) != own)
            .map(|(place, other)| (place, cosine(embedding, other)))
            .collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut glyphs = Vec::new();
        for (place, _) in order {
            let glyph = self.glyphs[place];
            if !glyphs.contains(&glyph) {
                glyphs.push(glyph);
                if glyphs.len() == count {
                    break;
                }
            }
        }
        glyphs
    }
}

/// What an image should show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth {
    /// Number of the style.
    pub style: usize,
    /// Number of the glyph.
    pub glyph: usize,
}

/// Whether an image shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// `style@1`.
    pub style: bool,
    /// `glyph@1`.
    pub glyph: bool,
    /// `glyph@5`.
    pub glyph_in_five: bool,
    /// `both@1`.
    pub both: bool,
    /// The style that the classifier named.
    pub named_style: usize,
    /// The glyph of the nearest real sticker.
    pub named_glyph: usize,
}

/// What a judge names in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The style.
    pub style: usize,
    /// Five glyphs, or all that the judge knows, the likeliest first.
    pub glyphs: Vec<usize>,
}

impl Named {
    /// Is it the truth?
    pub fn verdict(&self, truth: Truth) -> Verdict {
        let style = self.style == truth.style;
        let glyph = self.glyphs.first() == Some(&truth.glyph);
        Verdict {
            style,
            glyph,
            glyph_in_five: self.glyphs.contains(&truth.glyph),
            both: style && glyph,
            named_style: self.style,
            named_glyph: self.glyphs.first().copied().unwrap_or(usize::MAX),
        }
    }
}

/// Names style and glyph of images by their embeddings.
#[derive(Debug, Clone)]
pub struct TruthJudge {
    styles: StyleClassifier,
    glyphs: GlyphCatalogue,
}

impl TruthJudge {
    /// Joins both.
    pub fn new(styles: StyleClassifier, glyphs: GlyphCatalogue) -> Self {
        Self { styles, glyphs }
    }

    /// Names what one embedding shows. For a real sticker, `own` is its place in the glyph catalogue.
    pub fn name(&self, embedding: &[f32], own: Option<usize>) -> Named {
        Named {
            style: self.styles.predict(embedding),
            glyphs: self.glyphs.nearest(embedding, 5, own),
        }
    }
}

/// The four shares over users, with intervals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TruthScores {
    /// `style@1`.
    pub style: Interval,
    /// `glyph@1`.
    pub glyph: Interval,
    /// `glyph@5`.
    pub glyph_in_five: Interval,
    /// `both@1`.
    pub both: Interval,
}

/// Shares of right verdicts.
pub fn truth_scores(verdicts: &[Verdict], options: &BootstrapOptions) -> TruthScores {
    let share = |right: fn(&Verdict) -> bool| {
        let values: Vec<f64> = verdicts
            .iter()
            .map(|verdict| f64::from(u8::from(right(verdict))))
            .collect();
        bootstrap(&values, options)
    };
    TruthScores {
        style: share(|verdict| verdict.style),
        glyph: share(|verdict| verdict.glyph),
        glyph_in_five: share(|verdict| verdict.glyph_in_five),
        both: share(|verdict| verdict.both),
    }
}

/// One user's task, by places in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The history, in any order.
    pub history: Vec<usize>,
    /// The sticker to personalise.
    pub reference: usize,
    /// The sticker that would be right.
    pub target: usize,
}

/// The catalogue as the benchmark sees it; all lists have one entry per item.
#[derive(Debug, Clone, Copy)]
pub struct LabelledItems<'a> {
    /// Visual embeddings.
    pub embeddings: &'a [Vec<f32>],
    /// Numbered styles.
    pub styles: &'a [usize],
    /// Numbered glyphs.
    pub glyphs: &'a [usize],
    /// Whether the item is kept from all training.
    pub held_out: &'a [bool],
}

/// The items whose own pictures bound every method, one for each task: see [`Bounds`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundItems {
    /// The targets.
    pub ceiling: Vec<usize>,
    /// The references.
    pub reference: Vec<usize>,
    /// Random items of the histories.
    pub random_history: Vec<usize>,
    /// The nearest items that may be shown.
    pub nearest_item: Vec<usize>,
}

impl BoundItems {
    /// All of them, some more than once.
    pub fn all(&self) -> impl Iterator<Item = usize> {
        let lists = [
            &self.ceiling,
            &self.reference,
            &self.random_history,
            &self.nearest_item,
        ];
        lists.into_iter().flatten().copied()
    }

    /// Their verdicts, where `name` says what a judge names in an item's own picture.
    pub fn verdicts(&self, truths: &[Truth], name: impl Fn(usize) -> Named + Sync) -> Bounds {
        let all = |items: &[usize]| -> Vec<Verdict> {
            let items = items.par_iter().zip(truths);
            items
                .map(|(item, truth)| name(*item).verdict(*truth))
                .collect()
        };
        Bounds {
            ceiling: all(&self.ceiling),
            reference: all(&self.reference),
            random_history: all(&self.random_history),
            nearest_item: all(&self.nearest_item),
        }
    }
}

/// What any method should be read against.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// The targets' real images: the judge's own limit.
    pub ceiling: Vec<Verdict>,
    /// The reference, unchanged.
    pub reference: Vec<Verdict>,
    /// A random image of the history.
    pub random_history: Vec<Verdict>,
    /// The nearest item that is not held out, neither reference nor history, to the middle between the
    /// reference and its five nearest history items.
    pub nearest_item: Vec<Verdict>,
}

impl LabelledItems<'_> {
    /// A judge whose classifier saw training pairs only, and whose glyph catalogue holds every item.
    ///
    /// # Errors
    /// When the lists do not match.
    pub fn judge(&self, options: &StyleClassifierOptions) -> Result<TruthJudge, TruthError> {
        check(self.embeddings, self.held_out.len())?;
        check(self.embeddings, self.styles.len())?;
        let training = |place: &usize| !self.held_out[*place];
        let places: Vec<usize> = (0..self.embeddings.len()).filter(training).collect();
        let embeddings: Vec<Vec<f32>> = places
            .iter()
            .map(|&place| self.embeddings[place].clone())
            .collect();
        let styles: Vec<usize> = places.iter().map(|&place| self.styles[place]).collect();
        Ok(TruthJudge::new(
            StyleClassifier::fit(&embeddings, &styles, options)?,
            GlyphCatalogue::new(self.embeddings.to_vec(), self.glyphs.to_vec())?,
        ))
    }

    /// What the target of a task shows.
    pub fn truth(&self, task: &Task) -> Truth {
        Truth {
            style: self.styles[task.target],
            glyph: self.glyphs[task.target],
        }
    }

    /// The items of ceiling and floors for `tasks`; `seed` draws the random history images.
    pub fn bounds(&self, tasks: &[Task], seed: u64) -> BoundItems {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let random_history = tasks
            .iter()
            .map(|task| match task.history.len() {
                0 => task.reference,
                count => task.history[random.random_range(0..count)],
            })
            .collect();
        BoundItems {
            ceiling: tasks.iter().map(|task| task.target).collect(),
            reference: tasks.iter().map(|task| task.reference).collect(),
            random_history,
            nearest_item: tasks
                .par_iter()
                .map(|task| self.nearest_item(task))
                .collect(),
        }
    }

    /// See [`Bounds::nearest_item`].
    fn nearest_item(&self, task: &Task) -> usize {
        let reference = &self.embeddings[task.reference];
        let mut history: Vec<(usize, f64)> = task
            .history
            .iter()
            .map(|&item| (item, cosine(&self.embeddings[item], reference)))
            .collect();
        history.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        history.truncate(5);
        let mut query = unit(reference);
        for (item, _) in &history {
            for (sum, value) in query.iter_mut().zip(unit(&self.embeddings[*item])) {
                *sum += value / history.len() as f32;
            }
        }
        let allowed = |item: &usize| {
            !self.held_out[*item] && *item != task.reference && !task.history.contains(item)
        };
        (0..self.embeddings.len())
            .filter(allowed)
            .map(|item| (item, cosine(&self.embeddings[item], &query)))
            .fold((task.reference, f64::NEG_INFINITY), |best, next| {
                if next.1 > best.1 { next } else { best }
            })
            .0
    }
}

fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector
        .iter()
        .map(|value| value / length.max(1e-12))
        .collect()
}
