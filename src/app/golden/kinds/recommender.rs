//! Ranking models: graphs, states, losses, gradients, three optimiser steps and metrics. Their golden files hold the
//! parameters too.

use std::collections::BTreeMap;

use anyhow::Context as _;
use burn::module::{AutodiffModule as _, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, Tensor, TensorData};

use crate::app::backend::Backend;
use crate::app::golden::case::{Case, Outputs};
use crate::optimisation::parameters::{NamedTensors, Selection, collect, restore};
use crate::optimisation::{AdamW, AdamWConfig};
use crate::recommender::graph::Edges;
use crate::recommender::light_gcn::{LightGcn, Nodes};
use crate::recommender::neighbours::{Neighbours, unit_rows};
use crate::recommender::rank::{Ndcg, RankingOptions, evaluate_embeddings};
use crate::recommender::step::{Batch, add_idle_gradients};
use crate::recommender::{
    FeatureTable, FrozenGraphs, Interactions, ItemFeatures, Lattice, LightGcnRecommender, Micro,
    MicroConfig, Modality, Recommender as _, TrainableRecommender,
};

type Inner = <Backend as AutodiffBackend>::InnerBackend;

/// MICRO.
pub fn micro(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let recorded = Recorded::of(case, true)?;
    let (network, mut outputs) = recorded.common::<Micro<Backend>>(true)?;
    let graphs = recorded.graphs(&network);
    let network = network.valid();
    let states = network.embeddings(&graphs);
    outputs.put_data("image_item", states.image_items.into_data());
    outputs.put_data("text_item", states.text_items.into_data());
    outputs.put_data("attention", states.fusion.attention.into_data());
    outputs.put_data("h", states.fusion.fused.into_data());
    for (modality, graph) in [
        (Modality::Image, &graphs.image),
        (Modality::Text, &graphs.text),
    ] {
        let word = word(modality);
        recorded.neighbours(&mut outputs, word, [&graph.original, &graph.learned]);
        outputs.put_data(&format!("{word}_adj"), matrix(&graph.edges));
        recorded.similarities(&mut outputs, modality, network.projected(modality));
    }
    Ok(outputs)
}

/// LATTICE, MICRO's forerunner.
pub fn lattice(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let recorded = Recorded::of(case, true)?;
    let (network, mut outputs) = recorded.common::<Lattice<Backend>>(true)?;
    let graphs = recorded.graphs(&network);
    let network = network.valid();
    for (place, modality) in Modality::ALL.into_iter().enumerate() {
        let found = [&graphs.original[place], &graphs.learned[place]];
        recorded.neighbours(&mut outputs, word(modality), found);
        recorded.similarities(&mut outputs, modality, network.projected(modality));
    }
    outputs.put_data("item_adj", matrix(&graphs.edges));
    let mut items = network.item_id_embedding.weight.val();
    for _ in 0..graphs.num_item_layers {
        items = graphs.graph.propagate(items);
    }
    outputs.put_data("h", items.into_data());
    // The learned part of the one graph: what the given parts leave of it.
    let shares: Vec<f32> = network.shares().into_data().iter::<f32>().collect();
    let given = graphs.original.each_ref();
    let given = given.map(|found| found.normalised().to_dense());
    let kept = recorded.config.original_weight;
    let mut learned = graphs.edges.to_dense();
    for (place, weight) in learned.iter_mut().enumerate() {
        let of_given = shares[0] * given[0][place] + shares[1] * given[1][place];
        *weight = (*weight - kept * of_given) / (1.0 - kept);
    }
    let count = graphs.edges.num_rows();
    outputs.put_data("learned_adj", TensorData::new(learned, [count, count]));
    Ok(outputs)
}

/// LightGCN alone.
pub fn light_gcn(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let recorded = Recorded::of(case, false)?;
    Ok(recorded.common::<LightGcnRecommender<Backend>>(false)?.1)
}

/// Settings, catalogue and batches of a golden file.
struct Recorded<'a> {
    case: &'a Case<'a>,
    config: MicroConfig,
    features: ItemFeatures,
    history: Interactions,
    test: Interactions,
    cutoffs: Vec<usize>,
    rate: f64,
}

impl<'a> Recorded<'a> {
    fn of(case: &'a Case<'a>, modal: bool) -> anyhow::Result<Self> {
        let golden = case.golden;
        let config = MicroConfig {
            embedding_width: golden.required("embed")?,
            num_layers: golden.required("ui_layers")?,
            num_item_layers: golden.required("layers")?,
            num_neighbours: golden.required("topk")?,
            original_weight: golden.required("lambda")?,
            contrastive_weight: golden.required("loss_ratio")?,
            temperature: golden.required("tau")?,
            l2_weight: golden.required("decay")?,
            ..MicroConfig::default()
        };
        let (num_users, num_items): (usize, usize) =
            (golden.required("n_users")?, golden.required("n_items")?);
        let pairs = |part: &str| -> anyhow::Result<Interactions> {
            let mut by_user = vec![Vec::new(); num_users];
            for pair in golden.rows(&format!("{part}_pairs"))? {
                let (user, item) = (pair[0] as usize, pair[1] as usize);
                let list = by_user.get_mut(user).with_context(|| {
                    format!("{}: user {user} of {num_users}", golden.path().display())
                })?;
                list.push(item);
            }
            Ok(Interactions::new(num_items, by_user)?)
        };
        let table = |name: &'static str| -> anyhow::Result<FeatureTable> {
            // LightGCN has no features: any will do.
            if !modal {
                return Ok(FeatureTable::new(name, num_items, 1, vec![1.0; num_items])?);
            }
            let data = golden.input(&format!("{name}_feats"), 2)?;
            let width = data.shape[1];
            let values = data.iter::<f32>().collect();
            Ok(FeatureTable::new(name, num_items, width, values)?)
        };
        let cutoffs: String = golden.required("ks")?;
        let cutoffs = cutoffs.split(',').map(|k| k.trim().parse());
        Ok(Self {
            features: ItemFeatures::new(table("image")?, table("text")?)?,
            history: pairs("train")?,
            test: pairs("test")?,
            cutoffs: cutoffs.collect::<Result<_, _>>().context("metadata `ks`")?,
            rate: golden.required("lr")?,
            config,
            case,
        })
    }

    fn batches(&self) -> anyhow::Result<Vec<Batch>> {
        let rows = |name: &str| self.case.golden.rows(name);
        let (users, positives, negatives) = (rows("users")?, rows("pos")?, rows("neg")?);
        let parts = users.into_iter().zip(positives).zip(negatives);
        let batch = |((users, positives), negatives)| Batch {
            users,
            positives,
            negatives,
            contrasted: Vec::new(),
        };
        Ok(parts.map(batch).collect())
    }

    /// The recorded parameters in the model's places.
    fn network<R: TrainableRecommender<Backend>>(&self) -> anyhow::Result<R> {
        let device = &self.case.train_device;
        let network = R::initial(&self.config, &self.history, &self.features, device);
        let mut recorded = NamedTensors::new();
        for (name, fresh) in collect(&network, Selection::All) {
            let rank = fresh.shape.len();
            let data = self.case.golden.tensor(&format!("param.{name}"), rank)?;
            recorded.insert(name.clone(), as_recorded(&name, data));
        }
        Ok(restore(network, &recorded, Selection::All)?)
    }

    fn graphs<R: TrainableRecommender<Backend>>(&self, network: &R) -> FrozenGraphs<Backend, R> {
        let device = &self.case.device;
        let network = network.valid();
        network.graphs(&self.config, &self.history, &self.features, device)
    }

    /// What all models have: final vectors, interactions, losses, gradients, optimiser steps, metrics.
    fn common<R: TrainableRecommender<Backend>>(
        &self,
        modal: bool,
    ) -> anyhow::Result<(R, Outputs)> {
        let mut outputs = Outputs::default();
        let network: R = self.network()?;
        let graphs = self.graphs(&network);
        let vectors = network.valid().embed(&graphs);
        let num_users = self.history.num_users();
        outputs.put_data("scores", vectors.scores(0..num_users).into_data());
        outputs.put_data("user_emb", vectors.users.clone().into_data());
        outputs.put_data("item_emb", vectors.items.clone().into_data());
        outputs.put_data("norm_adj", self.interactions());

        let batches = self.batches()?;
        let first = batches.first().context("no batch is recorded")?;
        for (learn_graphs, prefix) in [(true, "grad"), (false, "grad_detached")] {
            let step = network.fit(&graphs, &self.config, first, learn_graphs);
            let losses = step.losses.read();
            let contrastive = losses.contrastive_image + losses.contrastive_text;
            for (name, value) in [
                ("bpr_loss", losses.pairwise),
                ("reg_loss", losses.l2),
                ("contrastive_image", losses.contrastive_image),
                ("contrastive_text", losses.contrastive_text),
                (
                    "contrastive_loss",
                    contrastive * self.config.contrastive_weight,
                ),
                ("total_loss", losses.total),
            ] {
                outputs.put_data(name, TensorData::from([value]));
            }
            for (name, data) in gradients(&network, &step.gradients) {
                outputs.put_data(&format!("{prefix}.{name}"), data);
            }
        }
        for (prefix, coast) in [("adam3_none", false), ("adam3_zero", modal)] {
            self.train::<R>(&mut outputs, prefix, coast, &batches)?;
        }
        for (ndcg, name) in [(Ndcg::Micro, "ndcg"), (Ndcg::Standard, "ndcg_standard")] {
            let options = RankingOptions {
                cutoffs: self.cutoffs.clone(),
                ndcg,
            };
            let taken = self.history.sorted();
            let scores =
                evaluate_embeddings(&vectors.users, &vectors.items, &taken, &self.test, &options);
            let mut put = |name: &str, values: Vec<f64>| {
                let count = values.len();
                outputs.put_data(&format!("metric.{name}"), TensorData::new(values, [count]));
            };
            put(name, scores.iter().map(|score| score.mean_ndcg()).collect());
            put(
                "recall",
                scores.iter().map(|score| score.mean_recall()).collect(),
            );
            put(
                "precision",
                scores.iter().map(|score| score.mean_precision()).collect(),
            );
            put(
                "hit_ratio",
                scores.iter().map(|score| score.mean_hit()).collect(),
            );
        }
        Ok((network, outputs))
    }

    /// The parameters after one optimiser step per batch, and each batch's loss.
    fn train<R: TrainableRecommender<Backend>>(
        &self,
        outputs: &mut Outputs,
        prefix: &str,
        coast: bool,
        batches: &[Batch],
    ) -> anyhow::Result<()> {
        let mut network: R = self.network()?;
        // Built once, as the authors do within an epoch.
        let graphs = self.graphs(&network);
        let mut optimizer = AdamW::<Backend>::new(AdamWConfig {
            max_gradient_norm: 0.0,
            ..AdamWConfig::default()
        });
        let mut losses = Vec::with_capacity(batches.len());
        for (index, batch) in batches.iter().enumerate() {
            let mut step = network.fit(&graphs, &self.config, batch, index == 0);
            losses.push(step.losses.read().total);
            if index > 0 && coast {
                let ids = network.graph_parameters();
                add_idle_gradients(&network, &ids, &mut step.gradients);
            }
            (network, _) = optimizer.apply(network, step.gradients, self.rate);
        }
        for (name, data) in collect(&network, Selection::All) {
            outputs.put_data(&format!("{prefix}.{name}"), as_recorded(&name, data));
        }
        let count = losses.len();
        outputs.put_data(&format!("{prefix}.loss"), TensorData::new(losses, [count]));
        Ok(())
    }

    /// The normalised graph of users and items as a matrix: half of one propagation of every unit vector, less the other
    /// half, which is the vector itself.
    fn interactions(&self) -> TensorData {
        let (users, items) = (self.history.num_users(), self.history.num_items());
        let count = users + items;
        let device = &self.case.device;
        let graph = LightGcn::<Inner>::new(&self.history, 1, self.config.dense_cells, device);
        let unit = Tensor::<Inner, 2>::eye(count, device);
        let mean = graph.propagate(Nodes {
            users: unit.clone().narrow(0, 0, users),
            items: unit.clone().narrow(0, users, items),
        });
        let mean = Tensor::cat(vec![mean.users, mean.items], 0);
        (mean.mul_scalar(2.0) - unit).into_data()
    }

    fn neighbours(&self, outputs: &mut Outputs, word: &str, found: [&Neighbours; 2]) {
        for (kind, neighbours) in ["original", "learned"].into_iter().zip(found) {
            let ids: Vec<i64> = neighbours.items().iter().map(|id| i64::from(*id)).collect();
            let shape = [neighbours.num_items(), neighbours.per_item()];
            outputs.put_data(&format!("{word}_{kind}_knn"), TensorData::new(ids, shape));
            let edges = matrix(&neighbours.normalised());
            outputs.put_data(&format!("{word}_{kind}_adj"), edges);
        }
    }

    /// Cosines of all pairs, by the given features and by the projected ones.
    fn similarities(&self, outputs: &mut Outputs, modality: Modality, projected: Tensor<Inner, 2>) {
        let given = match modality {
            Modality::Image => &self.features.image,
            Modality::Text => &self.features.text,
        };
        let given = given.tensor::<Inner>(&self.case.device);
        for (kind, rows) in [("original", given), ("learned", projected)] {
            let rows = unit_rows(rows);
            let mut cosines = rows.clone().matmul(rows.clone().transpose());
            // An item is like itself, also one without features.
            let length = (rows.clone() * rows).sum_dim(1);
            let [count, _] = cosines.dims();
            let none = length.equal_elem(0.0).float().expand([count, count]);
            cosines = cosines + none * Tensor::eye(count, &self.case.device);
            let name = format!("{}_{kind}_sim", word(modality));
            outputs.put_data(&name, cosines.into_data());
        }
    }
}

/// As golden files call it.
fn word(modality: Modality) -> &'static str {
    match modality {
        Modality::Image => "image",
        Modality::Text => "text",
    }
}

fn matrix(edges: &Edges) -> TensorData {
    TensorData::new(edges.to_dense(), [edges.num_rows(), edges.num_columns()])
}

/// Golden files keep linear weights as PyTorch does, `[out, in]`; the way there is the way back.
fn as_recorded(name: &str, data: TensorData) -> TensorData {
    let linear = name.ends_with("weight") && (name.contains("trs") || name.contains("query"));
    if !linear || data.shape.len() != 2 {
        return data;
    }
    let [rows, columns] = [data.shape[0], data.shape[1]];
    let data = data.convert_dtype(DType::F32);
    let values: Vec<f32> = data.iter::<f32>().collect();
    let turned = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    TensorData::new(
        turned.map(|place| values[place]).collect::<Vec<_>>(),
        [columns, rows],
    )
}

/// Gradients by the names of their parameters.
fn gradients<R: TrainableRecommender<Backend>>(
    network: &R,
    found: &GradientsParams,
) -> NamedTensors {
    let mut reading = Reading {
        gradients: found,
        path: Vec::new(),
        found: BTreeMap::new(),
    };
    network.visit(&mut reading);
    reading.found
}

struct Reading<'a> {
    gradients: &'a GradientsParams,
    path: Vec<String>,
    found: NamedTensors,
}

impl ModuleVisitor<Backend> for Reading<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<Backend, D>>) {
        if let Some(gradient) = self.gradients.get::<Inner, D>(parameter.id) {
            let name = self.path.join(".");
            let data = as_recorded(&name, gradient.into_data());
            self.found.insert(name, data);
        }
    }
}
