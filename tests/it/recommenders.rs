//! Every ranking model against an independent writing of its equations (tests/golden/micro.py).

use std::collections::BTreeMap;

use burn::module::{ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use ragar::optimisation::parameters::{NamedTensors, Selection, collect, restore};
use ragar::optimisation::{AdamW, AdamWConfig, Interrupt, Silent};
use ragar::recommender::neighbours::Neighbours;
use ragar::recommender::rank::{Ndcg, RankingOptions, evaluate_embeddings};
use ragar::recommender::step::{Batch, add_idle_gradients};
use ragar::recommender::{
    FeatureTable, FrozenGraphs, InteractionSplit, Interactions, ItemFeatures, Lattice,
    LightGcnRecommender, MatrixFactorisation, Micro, MicroConfig, Popularity, RankingModel,
    Recommender, RecommenderKind, TrainableRecommender,
};
use ragar::training::recommender::{
    RecommenderTrainingConfig, Sampler, TrainedRecommender, TrainingSurroundings, train,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::micro::grouped_world;
use crate::support::{Golden, TestBackend, compare, device, devices};

/// A recorded case: settings, catalogue, batches.
struct Case {
    golden: Golden,
    config: MicroConfig,
    features: ItemFeatures,
    history: Interactions,
    test: Interactions,
    batches: Vec<Batch>,
}

impl Case {
    fn open(name: &str) -> Self {
        let golden = Golden::open(name);
        let number = |key: &str| golden.metadata(key).unwrap().parse::<f32>().unwrap();
        let count = |key: &str| number(key) as usize;
        let config = MicroConfig {
            embedding_width: count("embed"),
            num_layers: count("ui_layers"),
            num_item_layers: count("layers"),
            num_neighbours: count("topk"),
            original_weight: number("lambda"),
            contrastive_weight: number("loss_ratio"),
            temperature: number("tau"),
            l2_weight: number("decay"),
            ..MicroConfig::default()
        };
        let (num_users, num_items) = (count("n_users"), count("n_items"));
        let integers = |name: &str| -> Vec<usize> {
            let data = golden.data(&format!("input.{name}"));
            data.iter::<i64>().map(|value| value as usize).collect()
        };
        let pairs = |part: &str| {
            let mut by_user = vec![Vec::new(); num_users];
            for pair in integers(&format!("{part}_pairs")).chunks(2) {
                by_user[pair[0]].push(pair[1]);
            }
            Interactions::new(num_items, by_user).unwrap()
        };
        // LightGCN's case has no features: any will do.
        let modal = golden.metadata("kind").unwrap() != "light-gcn";
        let table = |name: &'static str| {
            if !modal {
                return FeatureTable::new(name, num_items, 1, vec![1.0; num_items]).unwrap();
            }
            let data = golden.data(&format!("input.{name}_feats"));
            let width = data.shape[1];
            FeatureTable::new(name, num_items, width, data.iter::<f32>().collect()).unwrap()
        };
        let features = ItemFeatures::new(table("image"), table("text")).unwrap();
        let size = count("batch");
        let part = |name: &str, batch: usize| -> Vec<u32> {
            let rows = integers(name);
            let rows = rows[batch * size..(batch + 1) * size].iter();
            rows.map(|&row| row as u32).collect()
        };
        let batches = (0..3)
            .map(|batch| Batch {
                users: part("users", batch),
                positives: part("pos", batch),
                negatives: part("neg", batch),
                contrasted: Vec::new(),
            })
            .collect();
        Self {
            config,
            features,
            history: pairs("train"),
            test: pairs("test"),
            batches,
            golden,
        }
    }

    /// The recorded parameters in `R`'s places.
    fn network<R: TrainableRecommender<TestBackend>>(&self) -> R {
        let device = devices().train;
        let network = R::initial(&self.config, &self.history, &self.features, &device);
        let names: Vec<String> = collect(&network, Selection::All).into_keys().collect();
        let recorded: NamedTensors = names
            .into_iter()
            .map(|name| {
                let data = self.golden.data(&format!("param.{name}"));
                let data = if is_linear(&name) {
                    transposed(data)
                } else {
                    data
                };
                (name, data)
            })
            .collect();
        restore(network, &recorded, Selection::All).unwrap()
    }

    fn graphs<R: TrainableRecommender<TestBackend>>(
        &self,
        network: &R,
        config: &MicroConfig,
    ) -> FrozenGraphs<TestBackend, R> {
        let network = network.valid();
        network.graphs(config, &self.history, &self.features, &device())
    }

    fn check_forward<R: TrainableRecommender<TestBackend>>(&self, network: &R) {
        for dense_cells in [1 << 22, 0] {
            let config = MicroConfig {
                dense_cells,
                ..self.config.clone()
            };
            let output = network.valid().embed(&self.graphs(network, &config));
            self.golden.check("output.user_emb", output.users.clone());
            self.golden.check("output.item_emb", output.items.clone());
            let scores = output.scores(0..self.history.num_users());
            self.golden.check("output.scores", scores);
        }
    }

    fn check_gradients<R: TrainableRecommender<TestBackend>>(&self, modal: bool) {
        let network: R = self.network();
        for (dense_cells, block_rows) in [(1 << 22, 2048), (0, 7)] {
            let config = MicroConfig {
                dense_cells,
                block_rows,
                ..self.config.clone()
            };
            let graphs = self.graphs(&network, &config);
            for (learn_graphs, prefix) in [(true, "grad"), (false, "grad_detached")] {
                if !modal && !learn_graphs {
                    continue;
                }
                let step = network.fit(&graphs, &config, &self.batches[0], learn_graphs);
                let losses = step.losses.read();
                for (name, value) in [
                    ("bpr_loss", losses.pairwise),
                    ("reg_loss", losses.l2),
                    ("total_loss", losses.total),
                ] {
                    let data = self.golden.data(&format!("output.{name}"));
                    let expected = data.iter::<f32>().next().unwrap();
                    let bound = 1e-7 + 1e-5 * expected.abs();
                    assert!((value - expected).abs() <= bound, "{name}: {value}");
                }
                let found = named(&network, &step.gradients);
                let ids = network.graph_parameters();
                let mut count = 0;
                for (name, data) in &found {
                    let name = format!("output.{prefix}.{name}");
                    compare(&name, &self.golden.data(&name), data, 1e-8, 5e-4);
                    count += 1;
                }
                let all = collect(&network, Selection::All).len();
                let expected = if learn_graphs { all } else { all - ids.len() };
                assert_eq!(count, expected, "{prefix}: parameters with a gradient");
            }
        }
    }

    fn check_three_steps<R: TrainableRecommender<TestBackend>>(&self, modal: bool) {
        for (prefix, coast) in [("adam3_none", false), ("adam3_zero", true)] {
            if coast && !modal {
                continue;
            }
            let mut network: R = self.network();
            let graphs = self.graphs(&network, &self.config);
            let mut optimizer = AdamW::<TestBackend>::new(AdamWConfig {
                max_gradient_norm: 0.0,
                ..Default::default()
            });
            for (index, batch) in self.batches.iter().enumerate() {
                let mut step = network.fit(&graphs, &self.config, batch, index == 0);
                if index > 0 && coast {
                    let ids = network.graph_parameters();
                    add_idle_gradients(&network, &ids, &mut step.gradients);
                }
                (network, _) = optimizer.apply(network, step.gradients, 5e-4);
            }
            for (name, data) in collect(&network, Selection::All) {
                let data = if is_linear(&name) {
                    transposed(data)
                } else {
                    data
                };
                let name = format!("output.{prefix}.{name}");
                compare(&name, &self.golden.data(&name), &data, 1e-5, 1e-5);
            }
        }
    }

    fn check_metrics<R: TrainableRecommender<TestBackend>>(&self) {
        let network: R = self.network();
        let output = network.valid().embed(&self.graphs(&network, &self.config));
        for (ndcg, name) in [(Ndcg::Micro, "ndcg"), (Ndcg::Standard, "ndcg_standard")] {
            let options = RankingOptions {
                cutoffs: vec![5, 10],
                ndcg,
            };
            let scores = evaluate_embeddings(
                &output.users,
                &output.items,
                &self.history.sorted(),
                &self.test,
                &options,
            );
            for (name, figure) in [
                (name, [scores[0].mean_ndcg(), scores[1].mean_ndcg()]),
                ("recall", [scores[0].mean_recall(), scores[1].mean_recall()]),
            ] {
                let data = self.golden.data(&format!("output.metric.{name}"));
                for (expected, found) in data.iter::<f32>().zip(figure) {
                    assert!((f64::from(expected) - found).abs() < 1e-6, "{name}");
                }
            }
        }
    }
}

/// PyTorch keeps linear weights as [out, in].
fn is_linear(name: &str) -> bool {
    name.ends_with("weight") && (name.contains("trs") || name.contains("query"))
}

fn transposed(data: TensorData) -> TensorData {
    Tensor::<TestBackend, 2>::from_data(data, &device())
        .transpose()
        .into_data()
}

/// Gradients under the recorded names.
fn named<R: TrainableRecommender<TestBackend>>(
    network: &R,
    gradients: &GradientsParams,
) -> NamedTensors {
    struct Reading<'a> {
        gradients: &'a GradientsParams,
        path: Vec<String>,
        found: NamedTensors,
    }
    impl ModuleVisitor<TestBackend> for Reading<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<TestBackend, D>>) {
            if let Some(gradient) = self.gradients.get::<TestBackend, D>(parameter.id) {
                let name = self.path.join(".");
                let data = gradient.into_data();
                let data = if is_linear(&name) {
                    transposed(data)
                } else {
                    data
                };
                self.found.insert(name, data);
            }
        }
    }
    let mut reading = Reading {
        gradients,
        path: Vec::new(),
        found: BTreeMap::new(),
    };
    network.visit(&mut reading);
    reading.found
}

fn check_all<R: TrainableRecommender<TestBackend>>(name: &str, modal: bool) {
    let case = Case::open(name);
    case.check_forward(&case.network::<R>());
    case.check_gradients::<R>(modal);
    case.check_three_steps::<R>(modal);
    case.check_metrics::<R>();
}

#[test]
fn micro_matches_its_equations_at_odd_sizes() {
    check_all::<Micro<TestBackend>>("micro-uneven", true);
}

#[test]
fn lattice_matches_its_equations() {
    check_all::<Lattice<TestBackend>>("lattice", true);
}

#[test]
fn light_gcn_matches_its_equations() {
    check_all::<LightGcnRecommender<TestBackend>>("light-gcn", false);
}

#[test]
fn lattices_item_graph_matches() {
    let case = Case::open("lattice");
    let network: Lattice<TestBackend> = case.network();
    let graphs = case.graphs(&network, &case.config);
    let expected = case.golden.data("output.item_adj");
    let found = TensorData::new(graphs.edges.to_dense(), expected.shape.clone());
    compare("item_adj", &expected, &found, 1e-6, 1e-5);
}

#[test]
#[should_panic(expected = "output.item_emb")]
fn a_perturbed_share_fails_lattices_comparison() {
    let case = Case::open("lattice");
    let mut network: Lattice<TestBackend> = case.network();
    network.modal_weight = network.modal_weight.map(|weight| {
        let shift = Tensor::<TestBackend, 1>::from_data([0.02, 0.0], &weight.device());
        weight + shift
    });
    case.check_forward(&network);
}

#[test]
#[should_panic(expected = "output.user_emb")]
fn a_perturbed_vector_fails_light_gcns_comparison() {
    let case = Case::open("light-gcn");
    let mut network: LightGcnRecommender<TestBackend> = case.network();
    let weight = network.item_id_embedding.weight;
    network.item_id_embedding.weight = weight.map(|weight| weight * 1.01);
    case.check_forward(&network);
}

#[test]
fn matrix_factorisation_is_light_gcn_without_layers() {
    let case = Case::open("light-gcn");
    let config = MicroConfig {
        num_layers: 0,
        ..case.config.clone()
    };
    let plain: MatrixFactorisation<TestBackend> = case.network();
    let layered: LightGcnRecommender<TestBackend> = case.network();
    let graphs = case.graphs(&layered, &config);
    let expected = layered.fit(&graphs, &config, &case.batches[1], true);
    let found = plain.fit(&(), &config, &case.batches[1], true);
    assert_eq!(expected.losses.read(), found.losses.read());
    let expected = named(&layered, &expected.gradients);
    for (name, data) in named(&plain, &found.gradients) {
        compare(&name, &expected[&name], &data, 1e-9, 1e-6);
    }
}

/// The total loss of a batch as a function of the parameters, by a forward pass alone.
fn loss_of<R: TrainableRecommender<TestBackend>>(case: &Case, network: &R, batch: &Batch) -> f64 {
    let graphs = case.graphs(network, &case.config);
    let step = network.fit(&graphs, &case.config, batch, false);
    f64::from(step.losses.read().total)
}

/// Gradients by differences of the loss along a random direction of one parameter.
fn check_by_differences<R: TrainableRecommender<TestBackend>>(case: &Case, parameter: &str) {
    let network: R = case.network();
    let graphs = case.graphs(&network, &case.config);
    let step = network.fit(&graphs, &case.config, &case.batches[0], true);
    let gradient: Vec<f32> = named(&network, &step.gradients)[parameter]
        .iter::<f32>()
        .collect();
    let length = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
    // Along the gradient itself the slope is its length: the largest signal against rounding.
    let width = 0.02;
    let moved = |sign: f32| {
        let mut tensors = collect(&network, Selection::All);
        let data = &tensors[parameter];
        let shape = data.shape.clone();
        let gradient = TensorData::new(gradient.clone(), shape.clone());
        let gradient = if is_linear(parameter) {
            transposed(gradient)
        } else {
            gradient
        };
        let values: Vec<f32> = data
            .iter::<f32>()
            .zip(gradient.iter::<f32>())
            .map(|(value, g)| value + sign * width * g / length)
            .collect();
        tensors.insert(parameter.into(), TensorData::new(values, shape));
        let network = restore(network.clone(), &tensors, Selection::All).unwrap();
        loss_of(case, &network, &case.batches[0])
    };
    let slope = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(width));
    let expected = f64::from(length);
    assert!(
        (slope - expected).abs() < 0.02 * expected + 2e-5,
        "{parameter}: {slope} by differences, {expected} by the step"
    );
}

#[test]
fn gradients_over_padded_rows_match_finite_differences() {
    for parameter in [
        "user_embedding.weight",
        "item_id_embedding.weight",
        "query.0.weight",
    ] {
        let mut case = Case::open("micro-uneven");
        case.config.dense_cells = 0;
        case.config.block_rows = 9;
        check_by_differences::<Micro<TestBackend>>(&case, parameter);
    }
    for parameter in ["user_embedding.weight", "item_id_embedding.weight"] {
        let mut case = Case::open("lattice");
        case.config.dense_cells = 0;
        check_by_differences::<Lattice<TestBackend>>(&case, parameter);
        let mut case = Case::open("light-gcn");
        case.config.dense_cells = 0;
        check_by_differences::<LightGcnRecommender<TestBackend>>(&case, parameter);
    }
}

#[test]
fn a_contrast_over_drawn_items_is_the_contrast_of_these_items() {
    let case = Case::open("micro-uneven");
    let network: Micro<TestBackend> = case.network();
    let graphs = case.graphs(&network, &case.config);
    let mut batch = case.batches[0].clone();
    let whole = network.fit(&graphs, &case.config, &batch, false);
    // All items, in another order: the same.
    batch.contrasted = (0..case.history.num_items() as u32).rev().collect();
    let turned = network.fit(&graphs, &case.config, &batch, false);
    let expected = named(&network, &whole.gradients);
    for (name, data) in named(&network, &turned.gradients) {
        compare(&name, &expected[&name], &data, 1e-7, 1e-4);
    }
    batch.contrasted = vec![3, 9, 20, 5];
    let few = network
        .fit(&graphs, &case.config, &batch, false)
        .losses
        .read();
    let all = whole.losses.read();
    assert!(few.contrastive_image < all.contrastive_image && few.contrastive_image > 0.0);
    assert_eq!(few.pairwise, all.pairwise);

    let sampler = Sampler::new(&case.history, 16).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    assert!(sampler.draw(&mut random).contrasted.is_empty());
    let sampler = sampler.with_contrasted_items(6);
    let mut drawn = sampler.draw(&mut random).contrasted;
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 6, "distinct items");
}

fn trained<R: TrainableRecommender<TestBackend>>(
    features: &ItemFeatures,
    split: &InteractionSplit,
    training: &RecommenderTrainingConfig,
) -> TrainedRecommender<TestBackend, R> {
    let config = MicroConfig {
        kind: R::KIND,
        embedding_width: 16,
        num_neighbours: 4,
        ..Default::default()
    };
    let devices = devices();
    let surroundings = TrainingSurroundings {
        checkpoints: None,
        log: None,
        interrupt: &Interrupt::default(),
        progress: &Silent,
    };
    train(
        &config,
        training,
        features,
        split,
        &devices.train,
        &devices.frozen,
        surroundings,
    )
    .unwrap()
}

fn recall<R: TrainableRecommender<TestBackend>>() -> [f64; 2] {
    let (features, interactions) = grouped_world(80, 60, 6);
    let training = RecommenderTrainingConfig {
        learning_rate: 1e-2,
        batch_size: 64,
        max_epochs: 12,
        evaluation_interval: 3,
        ..Default::default()
    };
    let split = interactions.leave_last(2, 2);
    let run = trained::<R>(&features, &split, &training);
    assert_eq!(run.report.test[1].cutoff, 10);
    [run.report.test[1].recall, run.report.popularity[1].recall]
}

#[test]
fn every_model_that_learns_beats_popularity() {
    for [learned, floor] in [
        recall::<Micro<TestBackend>>(),
        recall::<Lattice<TestBackend>>(),
        recall::<LightGcnRecommender<TestBackend>>(),
        recall::<MatrixFactorisation<TestBackend>>(),
    ] {
        assert!(learned > 1.3 * floor, "{learned} against {floor}");
    }
    let [own, floor] = recall::<Popularity<TestBackend>>();
    assert_eq!(own, floor, "popularity is its own floor");
}

#[test]
fn words_and_models_agree() {
    for kind in RecommenderKind::ALL {
        let word = serde_json::to_value(kind).unwrap();
        assert_eq!(word, kind.word());
    }
    let error = serde_json::from_str::<MicroConfig>(r#"{"kind": "lightgcn"}"#).unwrap_err();
    assert!(error.to_string().contains("light-gcn"), "{error}");
}

/// Items 4 and 5 are touched by nobody, item 2 has no picture, item 5 no words; user 1 has one interaction, user 2 none.
fn awkward() -> (ItemFeatures, Interactions) {
    let mut image: Vec<Vec<f32>> = (0..6).map(|i| vec![1.0, i as f32, 0.5]).collect();
    let mut text: Vec<Vec<f32>> = (0..6).map(|i| vec![0.3 - i as f32, 1.0]).collect();
    image[2] = vec![0.0; 3];
    text[5] = vec![0.0; 2];
    let features = ItemFeatures::new(
        FeatureTable::from_rows("image", &image).unwrap(),
        FeatureTable::from_rows("text", &text).unwrap(),
    )
    .unwrap();
    let by_user = vec![vec![0, 1, 1, 2, 3, 0], vec![3], vec![]];
    (features, Interactions::new(6, by_user).unwrap())
}

fn embeds_without_nan<R: TrainableRecommender<TestBackend>>() {
    let (features, interactions) = awkward();
    let split = interactions.leave_last(1, 1);
    let training = RecommenderTrainingConfig {
        learning_rate: 0.05,
        batch_size: 8,
        max_epochs: 4,
        evaluation_interval: 2,
        ..Default::default()
    };
    // More neighbours than items, an isolated item, users with little.
    for (num_neighbours, dense_cells) in [(50, 1 << 22), (2, 0), (1, 0)] {
        let config = MicroConfig {
            kind: R::KIND,
            embedding_width: 4,
            num_neighbours,
            dense_cells,
            ..Default::default()
        };
        let devices = devices();
        let run = train::<TestBackend, R>(
            &config,
            &training,
            &features,
            &split,
            &devices.train,
            &devices.frozen,
            TrainingSurroundings {
                checkpoints: None,
                log: None,
                interrupt: &Interrupt::default(),
                progress: &Silent,
            },
        )
        .unwrap();
        let output = run.model.embeddings();
        for table in [&output.users, &output.items] {
            let values: Vec<f32> = table.to_data().iter::<f32>().collect();
            assert!(values.iter().all(|value| value.is_finite()), "{}", R::KIND);
        }
        assert_eq!(
            run.model.recommend(0, 50).len(),
            4,
            "all but two trained on"
        );
    }
}

#[test]
fn awkward_catalogues_are_embedded() {
    embeds_without_nan::<Micro<TestBackend>>();
    embeds_without_nan::<Lattice<TestBackend>>();
    embeds_without_nan::<LightGcnRecommender<TestBackend>>();
    embeds_without_nan::<MatrixFactorisation<TestBackend>>();
    embeds_without_nan::<Popularity<TestBackend>>();
}

/// Every item's only neighbour beside itself points the other way: similarities sum to nothing.
fn opposed() -> (ItemFeatures, Interactions) {
    let rows = [[1.0, 0.0], [-1.0, 0.0]];
    let table = |name| FeatureTable::from_rows(name, &rows).unwrap();
    let features = ItemFeatures::new(table("image"), table("text")).unwrap();
    (
        features,
        Interactions::new(2, vec![vec![0, 1], vec![1], vec![0]]).unwrap(),
    )
}

fn learns_from_what_is_cut_off<R: TrainableRecommender<TestBackend>>() {
    let (features, history) = opposed();
    let config = MicroConfig {
        kind: R::KIND,
        embedding_width: 4,
        ..Default::default()
    };
    let network = R::initial(&config, &history, &features, &devices().train);
    let graphs = network
        .valid()
        .graphs(&config, &history, &features, &device());
    let batch = Batch {
        users: vec![1, 2, 0],
        positives: vec![1, 0, 0],
        negatives: vec![0, 1, 1],
        contrasted: Vec::new(),
    };
    let step = network.fit(&graphs, &config, &batch, true);
    assert!(step.losses.read().total.is_finite(), "{}", R::KIND);
    for (name, gradient) in named(&network, &step.gradients) {
        let finite = gradient.iter::<f32>().all(f32::is_finite);
        assert!(finite, "{}: {name}", R::KIND);
    }
}

#[test]
fn rows_that_sum_to_nothing_are_cut_off() {
    let (features, _) = opposed();
    let table: Tensor<TestBackend, 2> = features.image.tensor(&device());
    let neighbours = Neighbours::nearest(table, 2, 2);
    assert_eq!(neighbours.degrees(), [0.0, 0.0]);
    assert_eq!(neighbours.normalised().to_dense(), [0.0; 4]);
    learns_from_what_is_cut_off::<Micro<TestBackend>>();
    learns_from_what_is_cut_off::<Lattice<TestBackend>>();
}

#[test]
fn cold_items_are_judged_apart() {
    let train = Interactions::new(4, vec![vec![0], vec![1]]).unwrap();
    let test = Interactions::new(4, vec![vec![1, 2], vec![3]]).unwrap();
    let (warm, cold) = test.warm_and_cold(&train);
    assert_eq!(warm.by_user(), [vec![1], vec![]]);
    assert_eq!(cold.by_user(), [vec![2], vec![3]]);
}

#[test]
fn what_cannot_be_ranked_is_named() {
    let ragged = [vec![1.0, 2.0], vec![1.0]];
    let message = FeatureTable::from_rows("text", &ragged)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("text") && message.contains("item 1"),
        "{message}"
    );
    let none: [Vec<f32>; 0] = [];
    assert!(FeatureTable::from_rows("text", &none).is_err());

    let (features, _) = awkward();
    let other = Interactions::new(7, vec![vec![6, 1, 2]]).unwrap();
    let micro =
        Micro::<TestBackend>::initial(&MicroConfig::default(), &other, &features, &device());
    let error = RankingModel::new(MicroConfig::default(), micro, features, other, &device());
    let message = error.err().unwrap().to_string();
    assert!(
        message.contains("6 items") && message.contains('7'),
        "{message}"
    );

    let nobody = Interactions::new(3, vec![vec![], vec![]]).unwrap();
    let message = Sampler::new(&nobody, 4).unwrap_err().to_string();
    assert!(message.contains("no user"), "{message}");
}
