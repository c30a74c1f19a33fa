//! The ranking model as a judge: how would the user take to this picture in the reference's place?
//!
//! **Paper:** the frozen ranking model scores an image by substituting its visual feature for that of the
//! reference item. **Our reading:** the reference's rows of both image graphs (given and learned
//! features) are recomputed with their neighbours' degrees, then its fused vector, its final vector, its
//! score, and its rank among the items outside the user's training history. The item's own vector is thus
//! what rebuilding every graph would give. **Approximation:** the vectors of the other items stay as they
//! are, although the new picture may have become their neighbour, or ceased to be.
//!
//! The trained feature table has moved away from the given features; the substituted feature is given the
//! same displacement. Judging the reference's own feature therefore gives the model's own score.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rayon::prelude::*;

use crate::networks::clip::{Clip, ClipPreprocessing, normalise};
use crate::nn::product::product;

use super::reward::Judgement;
use crate::recommender::Modality;
use crate::recommender::graph::degree_scale;
use crate::recommender::neighbours::{Neighbours, host, largest, unit_rows};
use crate::recommender::rank::rank_of;
use crate::recommender::{ItemSelection, MicroEmbeddings, RankingModel};

/// Similarities held on the host at once.
const SIMILARITIES_PER_BLOCK: usize = 1 << 22;

/// By how much each number of a normalised feature is moved to see how a score changes.
pub const DIFFERENCE: f32 = 0.02;

/// A picture to judge: for whom, and in whose place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Case {
    /// Row of the user in the ranking model.
    pub user: usize,
    /// Place of the item in the catalogue whose visual feature is substituted.
    pub reference: usize,
}

/// The frozen encoder whose space the ranking model's image features live in.
pub trait VisualEncoder<B: Backend> {
    /// Normalised embeddings of images in [−1, 1], `[batch, 3, height, width]` to `[batch, d]`.
    fn encode(&self, images: Tensor<B, 4>) -> Tensor<B, 2>;
}

/// CLIP's vision tower behind its own preprocessing, without leaving the device.
#[derive(Debug)]
pub struct ClipVisualEncoder<'a, B: Backend> {
    /// The network.
    pub clip: &'a Clip<B>,
    /// Size, mean and deviation of its pixels.
    pub preprocessing: &'a ClipPreprocessing,
}

impl<B: Backend> VisualEncoder<B> for ClipVisualEncoder<'_, B> {
    fn encode(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        normalise(
            self.clip
                .image_embeds(self.preprocessing.from_symmetric(images)),
        )
    }
}

/// A frozen ranking model that scores an image in the reference's place (equation 13 of the method).
pub trait Discriminator<B: Backend> {
    /// Judges candidate images for a user: each replaces the visual feature of the `reference` item, whose
    /// graph rows, embedding, score and rank are computed anew.
    ///
    /// # Shapes
    /// - `user`: row of the user in the ranking model; `reference`: place of the item in the catalogue
    /// - `visual`: normalised image embeddings, `[candidates, d]`
    /// - returns a judgement per candidate
    fn judge(&self, user: usize, reference: usize, visual: Tensor<B, 2>) -> Vec<Judgement>;

    /// Judges one image per case, `[cases, d]`: many users at once where an implementation can.
    fn judge_all(&self, cases: &[Case], visual: Tensor<B, 2>) -> Vec<Judgement> {
        let rows = cases.iter().enumerate();
        rows.flat_map(|(row, case)| {
            let image = visual.clone().slice([row..row + 1]);
            self.judge(case.user, case.reference, image)
        })
        .collect()
    }

    /// Slopes of the scores in the visual features, a row per case, `[cases, d]`: by central differences of
    /// [`DIFFERENCE`], which asks for `2d` scores a case but nothing of the model behind them, and which looks past the
    /// jumps that a top-k graph has.
    fn score_gradient(&self, cases: &[Case], visual: Tensor<B, 2>) -> Tensor<B, 2> {
        let [count, width] = visual.dims();
        let device = visual.device();
        let steps = Tensor::<B, 2>::eye(width, &device).mul_scalar(DIFFERENCE);
        let steps = Tensor::cat(vec![steps.clone(), steps.neg()], 0);
        let mut slopes = Vec::with_capacity(count * width);
        for (row, case) in cases.iter().enumerate() {
            let moved = visual.clone().narrow(0, row, 1) + steps.clone();
            let judged = self.judge_all(&vec![*case; 2 * width], moved);
            let (up, down) = judged.split_at(width);
            let slope = |(up, down): (&Judgement, &Judgement)| up.score - down.score;
            slopes.extend(up.iter().zip(down).map(slope));
        }
        let slopes = Tensor::from_data(TensorData::new(slopes, [count, width]), &device);
        slopes.div_scalar(2.0 * DIFFERENCE)
    }
}

/// A trained MICRO as a discriminator.
///
/// A cold item, one without training interactions, has only ever been a negative, and its collaborative
/// vector says nothing about it. The mean of its text neighbours' vectors stands in (ours). This shifts
/// its rank; differences between two pictures in its place do not depend on it.
#[derive(Debug, Clone)]
pub struct MicroDiscriminator<B: Backend> {
    model: RankingModel<B>,
    /// All stages of its forward pass.
    stages: MicroEmbeddings<B>,
    /// Which items of the catalogue the model knows.
    items: ItemSelection,
    given: Space<B>,
    learned: Space<B>,
    /// How far training moved each item's visual feature, `[items, visual width]`.
    displacement: Tensor<B, 2>,
    /// Item vectors before each propagation over the image graph, on the host.
    layers: Vec<Vec<f32>>,
    /// `[items, width]`, with stand-ins for cold items.
    collaborative_items: Tensor<B, 2>,
}

/// One of the two spaces in which image neighbours are looked for.
#[derive(Debug, Clone)]
struct Space<B: Backend> {
    /// Unit rows of all items, transposed: `[width, items]`.
    directions: Tensor<B, 2>,
    /// One neighbour more than the graph has: the one that moves up when another leaves.
    neighbours: Neighbours,
    per_item: usize,
}

impl<B: Backend> Space<B> {
    fn new(features: Tensor<B, 2>, per_item: usize, block_rows: usize) -> Self {
        let [num_items, _] = features.dims();
        Self {
            neighbours: Neighbours::nearest(features.clone(), per_item + 1, block_rows),
            directions: unit_rows(features).transpose(),
            per_item: per_item.min(num_items),
        }
    }

    /// Similarities of new features `[cases, width]` to all items, row after row.
    fn similarities(&self, features: Tensor<B, 2>) -> Vec<f32> {
        let similarities = product(unit_rows(features), self.directions.clone());
        host(similarities)
    }

    /// The graph's row of `reference` for new similarities: `(item, weight)`.
    fn row(&self, reference: u32, similarities: &mut [f32]) -> Vec<(u32, f32)> {
        similarities[reference as usize] = 1.0;
        let row = largest(similarities, self.per_item);
        let own_scale = degree_scale(row.iter().map(|&(_, similarity)| similarity).sum());
        row.into_iter()
            .map(|(other, similarity)| {
                let other_scale = if other == reference {
                    own_scale
                } else {
                    degree_scale(self.degree(other, reference, similarity))
                };
                (other, similarity * own_scale * other_scale)
            })
            .collect()
    }

    /// The degree of `item` when its similarity to `reference` is the given one.
    fn degree(&self, item: u32, reference: u32, similarity: f32) -> f32 {
        let others = || {
            self.neighbours
                .of(item as usize)
                .filter(|&(other, _)| other != reference)
                .take(self.per_item)
        };
        let sum: f32 = others().map(|(_, value)| value).sum();
        match others().nth(self.per_item - 1) {
            Some((last, value))
                if similarity > value || (similarity == value && reference < last) =>
            {
                sum - value + similarity
            }
            Some(_) => sum,
            // The catalogue is no larger than the neighbourhood: everyone is in.
            None => sum + similarity,
        }
    }
}

impl<B: Backend> MicroDiscriminator<B> {
    /// Prepares a trained model for judging; `items` says which items of the catalogue are its rows.
    ///
    /// # Panics
    /// When the model was trained on another selection.
    pub fn new(model: RankingModel<B>, items: ItemSelection) -> Self {
        let num_items = model.features().num_items();
        assert_eq!(
            items.len(),
            num_items,
            "items of the model and of the selection"
        );
        let config = model.config();
        let micro = model.network();
        let trained = micro.features(Modality::Image).weight.val();
        let device = trained.device();
        let given: Tensor<B, 2> = model.features().image.tensor(&device);
        let stages = micro.embeddings(model.graphs());
        let space = |features| Space::new(features, config.num_neighbours, config.block_rows);
        let mut vectors = micro.item_id_embedding.weight.val();
        let mut layers = Vec::new();
        for _ in 0..config.num_item_layers {
            layers.push(vectors.to_data().iter::<f32>().collect());
            vectors = model.graphs().image.graph.propagate(vectors);
        }
        Self {
            given: space(given.clone()),
            learned: space(micro.projected(Modality::Image)),
            displacement: trained - given,
            layers,
            collaborative_items: with_stand_ins(&model, &stages),
            stages,
            items,
            model,
        }
    }

    /// The model that judges.
    pub fn model(&self) -> &RankingModel<B> {
        &self.model
    }

    /// All stages of the model's forward pass.
    pub fn stages(&self) -> &MicroEmbeddings<B> {
        &self.stages
    }

    /// Whether the item at this place of the catalogue can be a reference.
    pub fn covers(&self, reference: usize) -> bool {
        self.items.row(reference).is_some()
    }

    /// The judgements of the references' own features.
    ///
    /// # Panics
    /// As [`Discriminator::judge_all`].
    pub fn judge_references(&self, cases: &[Case]) -> Vec<Judgement> {
        if cases.is_empty() {
            return Vec::new();
        }
        let table = &self.model.features().image;
        let own: Vec<f32> = self
            .rows(cases)
            .iter()
            .flat_map(|case| table.row(case.reference).iter().copied())
            .collect();
        let data = TensorData::new(own, [cases.len(), table.width()]);
        let device = self.displacement.device();
        self.judge_all(cases, Tensor::from_data(data, &device))
    }

    /// Cases with the model's rows in place of catalogue places.
    fn rows(&self, cases: &[Case]) -> Vec<Case> {
        let row = |case: &Case| {
            let row = self.items.row(case.reference);
            let reference = row.unwrap_or_else(|| {
                let place = case.reference;
                panic!("item {place} of the catalogue was kept from the ranking model: it cannot be a reference")
            });
            assert!(
                case.user < self.model.history().num_users(),
                "user {} is unknown",
                case.user
            );
            Case {
                user: case.user,
                reference,
            }
        };
        cases.iter().map(row).collect()
    }

    fn judge_block(&self, cases: &[Case], features: Tensor<B, 2>) -> Vec<Judgement> {
        let device = features.device();
        let places = |value: fn(&Case) -> usize| -> Tensor<B, 1, Int> {
            let rows: Vec<i32> = cases.iter().map(|case| value(case) as i32).collect();
            Tensor::from_data(TensorData::new(rows, [cases.len()]), &device)
        };
        let (users, references) = (places(|case| case.user), places(|case| case.reference));
        let moved = features.clone() + self.displacement.clone().select(0, references.clone());
        let projected = self.model.network().image_trs.forward(moved);
        let image_items = self.image_items(
            cases,
            self.given.similarities(features),
            self.learned.similarities(projected),
        );
        let width = self.model.config().embedding_width;
        let image_items =
            Tensor::from_data(TensorData::new(image_items, [cases.len(), width]), &device);
        let embeddings = &self.stages;
        let text_items = embeddings.text_items.clone().select(0, references.clone());
        let fused = self.model.network().fuse(image_items, text_items).fused;
        let items = self.collaborative_items.clone().select(0, references) + unit_rows(fused);

        let users = embeddings.users.clone().select(0, users);
        let scores: Tensor<B, 2> = (items * users.clone()).sum_dim(1);
        let others = product(users, embeddings.items.clone().transpose());
        let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
        let others = host(others);
        let num_items = self.model.features().num_items();
        cases
            .par_iter()
            .zip(scores)
            .zip(others.par_chunks(num_items))
            .map(|((case, score), others)| {
                let excluded = &self.model.excluded()[case.user];
                let rank = if score.is_finite() {
                    rank_of(score, case.reference as u32, others, excluded) as usize
                } else {
                    // A broken picture must not come first because nothing compares with it.
                    num_items.max(1)
                };
                Judgement { score, rank }
            })
            .collect()
    }

    /// Image-graph vectors of the references with their new rows, row after row.
    fn image_items(&self, cases: &[Case], mut given: Vec<f32>, mut learned: Vec<f32>) -> Vec<f32> {
        let num_items = self.model.features().num_items();
        let share = self.model.config().original_weight;
        let width = self.model.config().embedding_width;
        cases
            .par_iter()
            .zip(given.par_chunks_mut(num_items))
            .zip(learned.par_chunks_mut(num_items))
            .flat_map_iter(|((case, given), learned)| {
                let reference = case.reference as u32;
                let mut row = self.given.row(reference, given);
                row.iter_mut().for_each(|(_, weight)| *weight *= share);
                let other_share = 1.0 - share;
                let learned = self.learned.row(reference, learned);
                row.extend(
                    learned
                        .into_iter()
                        .map(|(other, w)| (other, w * other_share)),
                );

                let of = |layer: &[f32], item: usize| -> Vec<f32> {
                    layer[item * width..(item + 1) * width].to_vec()
                };
                let first = self.layers.first();
                let mut own = first.map_or(vec![0.0; width], |ids| of(ids, case.reference));
                for layer in &self.layers {
                    let mut next = vec![0.0; width];
                    for &(other, weight) in &row {
                        let vector = if other == reference {
                            own.clone()
                        } else {
                            of(layer, other as usize)
                        };
                        for (sum, value) in next.iter_mut().zip(vector) {
                            *sum += weight * value;
                        }
                    }
                    own = next;
                }
                own
            })
            .collect()
    }
}

/// # Panics
/// Both panic when a reference is not among the model's items (ask [`MicroDiscriminator::covers`] first), a
/// user is unknown, or the visual features have another width than those the model was trained on.
impl<B: Backend> Discriminator<B> for MicroDiscriminator<B> {
    fn judge(&self, user: usize, reference: usize, visual: Tensor<B, 2>) -> Vec<Judgement> {
        let [count, _] = visual.dims();
        self.judge_all(&vec![Case { user, reference }; count], visual)
    }

    fn judge_all(&self, cases: &[Case], visual: Tensor<B, 2>) -> Vec<Judgement> {
        let [count, width] = visual.dims();
        let table = &self.model.features().image;
        assert_eq!(count, cases.len(), "one row of visual features per case");
        assert_eq!(width, table.width(), "width of the visual features");
        let rows = self.rows(cases);
        let block = (SIMILARITIES_PER_BLOCK / table.num_rows().max(1)).max(1);
        let mut judgements = Vec::with_capacity(count);
        for start in (0..count).step_by(block) {
            let end = (start + block).min(count);
            let features = visual.clone().slice([start..end]);
            judgements.extend(self.judge_block(&rows[start..end], features));
        }
        judgements
    }
}

/// Collaborative item vectors, those of cold items replaced by the mean of their warm text neighbours.
fn with_stand_ins<B: Backend>(
    model: &RankingModel<B>,
    stages: &MicroEmbeddings<B>,
) -> Tensor<B, 2> {
    let vectors = stages.collaborative_items.clone();
    let popularity = model.history().popularity();
    if popularity.iter().all(|&count| count > 0) {
        return vectors;
    }
    let [num_items, width] = vectors.dims();
    let device = vectors.device();
    let trained: Vec<f32> = vectors.into_data().iter::<f32>().collect();
    let mut filled = trained.clone();
    for cold in (0..num_items).filter(|&item| popularity[item] == 0) {
        let warm: Vec<usize> = model
            .graphs()
            .text
            .original
            .of(cold)
            .map(|(other, _)| other as usize)
            .filter(|&other| popularity[other] > 0)
            .collect();
        for column in 0..width {
            let sum: f32 = warm.iter().map(|item| trained[item * width + column]).sum();
            filled[cold * width + column] = sum / warm.len().max(1) as f32;
        }
    }
    Tensor::from_data(TensorData::new(filled, [num_items, width]), &device)
}
