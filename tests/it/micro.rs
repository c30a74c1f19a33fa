//! MICRO against its authors' code, and its graphs, gradients and rankings against first principles.

use burn::module::{AutodiffModule, Param};
use burn::tensor::{Int, Tensor, TensorData};
use ragar::optimisation::{AdamW, AdamWConfig, CheckpointStore, Interrupt, Progress, Silent};
use ragar::recommender::contrastive::contrastive;
use ragar::recommender::graph::{Edges, Graph};
use ragar::recommender::micro::fit;
use ragar::recommender::neighbours::{Neighbours, unit_rows};
use ragar::recommender::rank::{
    Ndcg, RankingOptions, best_items, evaluate_embeddings, evaluate_popularity, rank_of,
};
use ragar::recommender::rows::RowSelection;
use ragar::recommender::step::{Batch, add_idle_gradients};
use ragar::recommender::{
    FeatureTable, Interactions, ItemFeatures, ItemSelection, Micro, MicroConfig, MicroGraphs,
    RankingModel, TrainableRecommender,
};
use ragar::reflection::discriminator::{Case, Discriminator, MicroDiscriminator};
use ragar::training::recommender::{
    RecommenderTrainingConfig, RecommenderTrainingError, TrainedRecommender, TrainingSurroundings,
    train,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{Golden, StopAfter, TestBackend, compare, device, devices, on_flex};

const NUM_USERS: usize = 30;
const NUM_ITEMS: usize = 40;

fn golden_config() -> MicroConfig {
    MicroConfig {
        embedding_width: 16,
        num_neighbours: 5,
        ..Default::default()
    }
}

fn floats(golden: &Golden, name: &str) -> Vec<f32> {
    golden.data(name).iter::<f32>().collect()
}

fn integers(golden: &Golden, name: &str) -> Vec<usize> {
    golden
        .data(name)
        .iter::<i64>()
        .map(|v| v as usize)
        .collect()
}

fn golden_features(golden: &Golden) -> ItemFeatures {
    let table = |name: &'static str, width: usize| {
        let values = floats(golden, &format!("input.{name}_feats"));
        FeatureTable::new(name, NUM_ITEMS, width, values).unwrap()
    };
    ItemFeatures::new(table("image", 24), table("text", 12)).unwrap()
}

fn golden_pairs(golden: &Golden, part: &str) -> Interactions {
    let mut by_user = vec![Vec::new(); NUM_USERS];
    for pair in integers(golden, &format!("input.{part}_pairs")).chunks(2) {
        by_user[pair[0]].push(pair[1]);
    }
    Interactions::new(NUM_ITEMS, by_user).unwrap()
}

/// The recorded parameters, with or without a graph as the device says.
fn golden_micro(golden: &Golden, device: &burn::tensor::Device<TestBackend>) -> Micro<TestBackend> {
    let mut micro = Micro::zeros(&golden_config(), NUM_USERS, NUM_ITEMS, 24, 12, device);
    let table = |name: &str| {
        let data = golden.data(&format!("param.{name}"));
        Param::from_tensor(Tensor::<TestBackend, 2>::from_data(data, device))
    };
    // PyTorch keeps linear weights as [out, in].
    let linear = |name: &str| {
        let data = golden.data(&format!("param.{name}"));
        Param::from_tensor(Tensor::<TestBackend, 2>::from_data(data, device).transpose())
    };
    let bias = |name: &str| {
        let data = golden.data(&format!("param.{name}"));
        Some(Param::from_tensor(Tensor::<TestBackend, 1>::from_data(
            data, device,
        )))
    };
    micro.user_embedding.weight = table("user_embedding.weight");
    micro.item_id_embedding.weight = table("item_id_embedding.weight");
    micro.image_embedding.weight = table("image_embedding.weight");
    micro.text_embedding.weight = table("text_embedding.weight");
    micro.image_trs.weight = linear("image_trs.weight");
    micro.image_trs.bias = bias("image_trs.bias");
    micro.text_trs.weight = linear("text_trs.weight");
    micro.text_trs.bias = bias("text_trs.bias");
    micro.query.0.weight = linear("query.0.weight");
    micro.query.0.bias = bias("query.0.bias");
    micro.query.2.weight = linear("query.2.weight");
    micro
}

fn golden_batch(golden: &Golden, index: usize) -> Batch {
    let part = |name: &str| {
        integers(golden, &format!("input.{name}"))[index * 32..(index + 1) * 32]
            .iter()
            .map(|&v| v as u32)
            .collect()
    };
    Batch {
        users: part("users"),
        positives: part("pos"),
        negatives: part("neg"),
        contrasted: Vec::new(),
    }
}

fn golden_graphs(golden: &Golden, config: &MicroConfig) -> MicroGraphs<TestBackend> {
    MicroGraphs::new(
        config,
        &golden_pairs(golden, "train"),
        &golden_features(golden),
        &golden_micro(golden, &device()),
        &device(),
    )
}

fn check_matrix(golden: &Golden, name: &str, cells: Vec<f32>, shape: [usize; 2]) {
    compare(
        name,
        &golden.data(name),
        &TensorData::new(cells, shape),
        1e-5,
        1e-4,
    );
}

#[test]
fn graphs_match_the_authors_code() {
    let golden = Golden::open("micro");
    let graphs = golden_graphs(&golden, &golden_config());
    for (name, graph) in [("image", &graphs.image), ("text", &graphs.text)] {
        for (kind, neighbours) in [("original", &graph.original), ("learned", &graph.learned)] {
            let expected = integers(&golden, &format!("output.{name}_{kind}_knn"));
            let found: Vec<usize> = neighbours.items().iter().map(|&i| i as usize).collect();
            assert_eq!(found, expected, "{name} {kind} neighbours");
            check_matrix(
                &golden,
                &format!("output.{name}_{kind}_adj"),
                neighbours.normalised().to_dense(),
                [NUM_ITEMS, NUM_ITEMS],
            );
        }
        check_matrix(
            &golden,
            &format!("output.{name}_adj"),
            graph.edges.to_dense(),
            [NUM_ITEMS, NUM_ITEMS],
        );
    }
}

#[test]
fn forward_pass_matches_the_authors_code() {
    let golden = Golden::open("micro");
    let micro = golden_micro(&golden, &device());
    // As matrices, and as padded rows.
    for dense_cells in [1 << 22, 0] {
        let config = MicroConfig {
            dense_cells,
            ..golden_config()
        };
        let output = micro.embeddings(&golden_graphs(&golden, &config));
        golden.check("output.image_item", output.image_items);
        golden.check("output.text_item", output.text_items);
        golden.check("output.attention", output.fusion.attention);
        golden.check("output.h", output.fusion.fused);
        golden.check("output.user_emb", output.users.clone());
        golden.check("output.item_emb", output.items.clone());
        golden.check(
            "output.scores",
            output.users.matmul(output.items.transpose()),
        );
    }
}

#[test]
#[should_panic(expected = "output.item_emb")]
fn a_perturbed_weight_fails_the_comparison() {
    let golden = Golden::open("micro");
    let mut micro = golden_micro(&golden, &device());
    micro.query.2.weight = micro.query.2.weight.map(|weight| weight * 1.05);
    let output = micro.embeddings(&golden_graphs(&golden, &golden_config()));
    golden.check("output.item_emb", output.items);
}

/// Parameters, or their gradients, under the recorded names.
fn check_tables(golden: &Golden, prefix: &str, tables: Vec<(&str, Tensor<TestBackend, 2>)>) {
    for (name, tensor) in tables {
        let transposed = !name.contains("embedding");
        let tensor = if transposed {
            tensor.transpose()
        } else {
            tensor
        };
        // Gradients are small: hold them against their own size.
        let name = format!("{prefix}.{name}");
        compare(&name, &golden.data(&name), &tensor.into_data(), 1e-8, 5e-4);
    }
}

#[test]
fn losses_and_gradients_match_the_authors_code() {
    let golden = Golden::open("micro");
    let micro = golden_micro(&golden, &devices().train);
    let batch = golden_batch(&golden, 0);
    for (dense_cells, block_rows) in [(1 << 22, 2048), (0, 7)] {
        let config = MicroConfig {
            dense_cells,
            block_rows,
            ..golden_config()
        };
        let graphs = golden_graphs(&golden, &config);
        for learn_graphs in [true, false] {
            let result = fit(&micro, &graphs, &config, &batch, learn_graphs);
            let losses = result.losses.read();
            for (name, value) in [
                ("bpr_loss", losses.pairwise),
                ("reg_loss", losses.l2),
                ("contrastive_image", losses.contrastive_image),
                ("contrastive_text", losses.contrastive_text),
                ("total_loss", losses.total),
            ] {
                let expected = floats(&golden, &format!("output.{name}"))[0];
                let bound = 1e-7 + 1e-5 * expected.abs();
                assert!(
                    (value - expected).abs() <= bound,
                    "{name}: {value}, {expected}"
                );
            }

            let prefix = if learn_graphs {
                "output.grad"
            } else {
                "output.grad_detached"
            };
            let table = |id| {
                result
                    .gradients
                    .get::<TestBackend, 2>(id)
                    .expect("a gradient")
            };
            let mut tables = vec![
                (
                    "user_embedding.weight",
                    table(micro.user_embedding.weight.id),
                ),
                (
                    "item_id_embedding.weight",
                    table(micro.item_id_embedding.weight.id),
                ),
                ("query.0.weight", table(micro.query.0.weight.id)),
                ("query.2.weight", table(micro.query.2.weight.id)),
            ];
            let feature_ids = [
                ("image_embedding.weight", micro.image_embedding.weight.id),
                ("text_embedding.weight", micro.text_embedding.weight.id),
                ("image_trs.weight", micro.image_trs.weight.id),
                ("text_trs.weight", micro.text_trs.weight.id),
            ];
            if learn_graphs {
                tables.extend(feature_ids.map(|(name, id)| (name, table(id))));
                for (name, linear) in [
                    ("image_trs", &micro.image_trs),
                    ("text_trs", &micro.text_trs),
                ] {
                    let id = linear.bias.as_ref().unwrap().id;
                    let gradient = result.gradients.get::<TestBackend, 1>(id).unwrap();
                    let name = format!("output.grad.{name}.bias");
                    compare(
                        &name,
                        &golden.data(&name),
                        &gradient.into_data(),
                        1e-8,
                        5e-4,
                    );
                }
            } else {
                for (name, id) in feature_ids {
                    let gradient = result.gradients.get::<TestBackend, 2>(id);
                    assert!(gradient.is_none(), "{name} must stand still");
                }
            }
            check_tables(&golden, prefix, tables);
        }
    }
}

#[test]
fn contrastive_gradient_matches_automatic_differentiation() {
    let golden = Golden::open("micro");
    let train = devices().train;
    let leaf =
        |name: &str| Tensor::<TestBackend, 2>::from_data(golden.data(name), &train).require_grad();
    let (modality, fused) = (leaf("output.text_item"), leaf("output.h"));
    let temperature = 0.2;
    let (z, u) = (unit_rows(modality), unit_rows(fused));
    // Leaves again, so that the gradients are those of the unit rows.
    let z = Tensor::from_inner(z.inner()).require_grad();
    let u = Tensor::from_inner(u.inner()).require_grad();
    let scores = |a: Tensor<TestBackend, 2>, b: Tensor<TestBackend, 2>| {
        (a.matmul(b.transpose()) / temperature).exp()
    };
    let own = ((z.clone() * z.clone()).sum_dim(1) / temperature).exp();
    let total =
        scores(z.clone(), z.clone()).sum_dim(1) + scores(z.clone(), u.clone()).sum_dim(1) - own;
    let positive = (z.clone() * u.clone()).sum_dim(1) / temperature;
    let loss = (total.log() - positive).mean();
    let gradients = loss.backward();

    let result = contrastive(z.clone().inner(), u.clone().inner(), temperature, 11);
    compare(
        "loss",
        &loss.into_data(),
        &result.loss.into_data(),
        1e-6,
        1e-6,
    );
    let expected = z.grad(&gradients).unwrap().into_data();
    compare(
        "modality",
        &expected,
        &result.modality_gradient.into_data(),
        1e-7,
        1e-5,
    );
    let expected = u.grad(&gradients).unwrap().into_data();
    compare(
        "fused",
        &expected,
        &result.fused_gradient.into_data(),
        1e-7,
        1e-5,
    );
}

#[test]
fn products_with_padded_rows_match_the_matrix() {
    let rows = (0..37u32).map(|row| {
        (0..row % 9)
            .map(|edge| {
                (
                    (row * 7 + edge * 5) % 23,
                    (row as f32 - 3.0 * edge as f32) * 0.1,
                )
            })
            .collect::<Vec<_>>()
    });
    let edges = Edges::from_rows(23, rows);
    let (dense, padded) = (
        Graph::<TestBackend>::new(&edges, usize::MAX, &device()),
        Graph::<TestBackend>::new(&edges, 0, &device()),
    );
    let vectors = |count: usize| {
        let values: Vec<f32> = (0..count * 3).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::<TestBackend, 2>::from_data(TensorData::new(values, [count, 3]), &device())
    };
    compare(
        "forward",
        &dense.propagate(vectors(23)).into_data(),
        &padded.propagate(vectors(23)).into_data(),
        1e-5,
        1e-5,
    );
    compare(
        "back",
        &dense.propagate_back(vectors(37)).into_data(),
        &padded.propagate_back(vectors(37)).into_data(),
        1e-5,
        1e-5,
    );
}

/// Selected rows' gradients go back to the table as automatic differentiation says: summed where a row was taken more
/// than once, zero where it was not.
#[test]
fn gradients_of_selected_rows_match_automatic_differentiation() {
    let devices = devices();
    let values = |rows: usize, width: usize| {
        let values: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 0.61).cos()).collect();
        TensorData::new(values, [rows, width])
    };
    let repeated: Vec<u32> = (0..70).map(|place| (place * place) % 11).collect();
    // Repeated rows, a single one, each once, and more rows than a power of two of them.
    for (rows, num_rows) in [
        (repeated, 13),
        (vec![2; 33], 5),
        (vec![4], 9),
        (vec![2, 0, 1], 3),
    ] {
        for width in [1, 6] {
            let selection = RowSelection::<TestBackend>::new(&rows, num_rows, &devices.frozen);
            let table =
                Tensor::<TestBackend, 2>::from_data(values(num_rows, width), &devices.train)
                    .require_grad();
            let weights = values(rows.len(), width);
            let places: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
            let places = TensorData::new(places, [rows.len()]);
            let places = Tensor::<TestBackend, 1, Int>::from_data(places, &devices.train);
            let taken = table.clone().select(0, places);
            let factor = Tensor::from_data(weights.clone(), &devices.train);
            let gradients = (taken.clone() * factor).sum().backward();
            let plain = table.clone().inner();
            compare(
                "rows",
                &taken.into_data(),
                &selection.take(plain).into_data(),
                0.0,
                0.0,
            );
            let expected = table.grad(&gradients).expect("a gradient").into_data();
            let gradient = Tensor::from_data(weights, &devices.frozen);
            let found = selection.give_back(gradient).into_data();
            compare("gradient", &expected, &found, 1e-5, 1e-5);
        }
    }
}

#[test]
fn rows_without_edges_get_nothing_whatever_the_vectors() {
    let edges = Edges::from_rows(3, [vec![], vec![(2, 0.5)], vec![]]);
    let graph = Graph::<TestBackend>::new(&edges, 0, &device());
    let vectors = Tensor::from_data([[f32::NAN], [f32::INFINITY], [4.0]], &device());
    let found: Vec<f32> = graph.propagate(vectors).into_data().iter::<f32>().collect();
    assert_eq!(found, [0.0, 2.0, 0.0]);
    let none = Edges::from_rows(2, [vec![], vec![]]);
    let graph = Graph::<TestBackend>::new(&none, 0, &device());
    let vectors = Tensor::ones([2, 3], &device());
    let found: Vec<f32> = graph.propagate(vectors).into_data().iter::<f32>().collect();
    assert_eq!(found, [0.0; 6]);
}

#[test]
fn neighbours_guard_zero_rows_and_ties() {
    // Items 0, 1 and 2 are equal, item 3 has no features, item 4 points the other way.
    let features = Tensor::<TestBackend, 2>::from_data(
        [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]],
        &device(),
    );
    let neighbours = Neighbours::nearest(features, 2, 2);
    let of = |item| {
        neighbours
            .of(item)
            .map(|(other, _)| other)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(0), [0, 1]);
    assert_eq!(of(2), [0, 1], "the lower item first");
    assert_eq!(of(3), [3, 0], "without features an item has only itself");
    let weights = neighbours.normalised();
    assert_eq!(weights.row(3).map(|(_, w)| w).sum::<f32>(), 1.0);
    assert!(weights.to_dense().iter().all(|w| w.is_finite()));
}

#[test]
fn metrics_match_the_authors_code() {
    let golden = Golden::open("micro");
    let micro = golden_micro(&golden, &device());
    let output = micro.embeddings(&golden_graphs(&golden, &golden_config()));
    let train = golden_pairs(&golden, "train");
    let test = golden_pairs(&golden, "test");
    for (ndcg, name) in [(Ndcg::Micro, "ndcg"), (Ndcg::Standard, "ndcg_standard")] {
        let options = RankingOptions {
            cutoffs: vec![10, 20],
            ndcg,
        };
        let scores = evaluate_embeddings(
            &output.users,
            &output.items,
            &train.sorted(),
            &test,
            &options,
        );
        for (place, score) in scores.iter().enumerate() {
            for (name, value) in [
                (name, score.mean_ndcg()),
                ("recall", score.mean_recall()),
                ("precision", score.mean_precision()),
                ("hit_ratio", score.mean_hit()),
            ] {
                let expected = f64::from(floats(&golden, &format!("output.metric.{name}"))[place]);
                assert!(
                    (value - expected).abs() < 1e-6,
                    "{name}: {value}, {expected}"
                );
            }
        }
    }
}

#[test]
fn ranks_by_hand() {
    let scores = [0.5, 0.9, 0.1, 0.9, 0.7];
    assert_eq!(best_items(&scores, &[1], 3), [3, 4, 0]);
    assert_eq!(best_items(&scores, &[0, 1, 2, 3, 4], 3), Vec::<u32>::new());
    assert_eq!(rank_of(0.5, 0, &scores, &[]), 4);
    assert_eq!(rank_of(0.5, 0, &scores, &[1, 2]), 3);
    assert_eq!(
        rank_of(0.6, 1, &scores, &[]),
        3,
        "its old score does not count"
    );

    let train = Interactions::new(4, vec![vec![0, 1], vec![0], vec![0]]).unwrap();
    let relevant = Interactions::new(4, vec![vec![2], vec![1], vec![]]).unwrap();
    let options = RankingOptions {
        cutoffs: vec![1],
        ndcg: Ndcg::Standard,
    };
    let floor = &evaluate_popularity(&train, &train.sorted(), &relevant, &options)[0];
    assert_eq!(
        floor.recall,
        [1.0, 1.0],
        "users without test items do not count"
    );
}

#[test]
fn the_last_items_are_left_out() {
    let interactions =
        Interactions::new(9, vec![vec![4, 3, 4, 2, 1], vec![7], vec![5, 6]]).unwrap();
    let split = interactions.leave_last(1, 1);
    assert_eq!(split.train.by_user(), [vec![4, 3], vec![7], vec![5]]);
    assert_eq!(split.validation.by_user(), [vec![2], vec![], vec![]]);
    assert_eq!(split.test.by_user(), [vec![1], vec![], vec![6]]);
}

#[test]
fn bad_input_is_named() {
    let message = Interactions::new(3, vec![vec![0], vec![3]])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("user 1") && message.contains("item 3"),
        "{message}"
    );
    let message = FeatureTable::new("image", 2, 2, vec![0.0, 1.0, f32::NAN, 0.0])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("image") && message.contains("item 1"),
        "{message}"
    );
    let config = MicroConfig {
        temperature: 0.0,
        ..Default::default()
    };
    assert!(
        config
            .validate()
            .unwrap_err()
            .to_string()
            .contains("temperature")
    );
    let message = serde_json::from_str::<MicroConfig>(r#"{"tau": 1}"#)
        .unwrap_err()
        .to_string();
    assert!(message.contains("tau"), "{message}");
}

#[test]
fn three_adam_steps_match_the_authors_code() {
    let golden = Golden::open("micro");
    let config = golden_config();
    for (prefix, coast) in [("output.adam3_none", false), ("output.adam3_zero", true)] {
        let mut micro = golden_micro(&golden, &devices().train);
        let graphs = golden_graphs(&golden, &config);
        let mut optimizer = AdamW::<TestBackend>::new(AdamWConfig {
            max_gradient_norm: 0.0,
            ..Default::default()
        });
        for index in 0..3 {
            let batch = golden_batch(&golden, index);
            let mut result = fit(&micro, &graphs, &config, &batch, index == 0);
            let expected = floats(&golden, &format!("{prefix}.loss"))[index];
            let loss = result.losses.read().total;
            assert!(
                (loss - expected).abs() < 1e-5,
                "step {index}: {loss}, {expected}"
            );
            if index > 0 && coast {
                add_idle_gradients(&micro, &micro.graph_parameters(), &mut result.gradients);
            }
            (micro, _) = optimizer.apply(micro, result.gradients, 5e-4);
        }
        let micro = micro.valid();
        for (name, tensor) in [
            ("user_embedding.weight", micro.user_embedding.weight.val()),
            (
                "item_id_embedding.weight",
                micro.item_id_embedding.weight.val(),
            ),
            ("image_embedding.weight", micro.image_embedding.weight.val()),
            ("text_embedding.weight", micro.text_embedding.weight.val()),
            ("image_trs.weight", micro.image_trs.weight.val().transpose()),
            ("text_trs.weight", micro.text_trs.weight.val().transpose()),
            ("query.0.weight", micro.query.0.weight.val().transpose()),
            ("query.2.weight", micro.query.2.weight.val().transpose()),
        ] {
            let name = format!("{prefix}.{name}");
            compare(&name, &golden.data(&name), &tensor.into_data(), 1e-5, 1e-5);
        }
    }
}

/// Users who each like two of `num_groups` groups of items; features name the group.
pub fn grouped_world(
    num_users: usize,
    num_items: usize,
    num_groups: usize,
) -> (ItemFeatures, Interactions) {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut table = |name, width: usize| {
        let values = (0..num_items * width)
            .map(|place| {
                let (item, column) = (place / width, place % width);
                let own = if column % num_groups == item % num_groups {
                    1.0
                } else {
                    0.0
                };
                own + random.random_range(-0.2..0.2)
            })
            .collect();
        FeatureTable::new(name, num_items, width, values).unwrap()
    };
    let features = ItemFeatures::new(table("image", 32), table("text", 16)).unwrap();
    let by_user = (0..num_users)
        .map(|_| {
            let liked = [
                random.random_range(0..num_groups),
                random.random_range(0..num_groups),
            ];
            (0..20)
                .map(|_| {
                    let group = liked[random.random_range(0..2)];
                    group + num_groups * random.random_range(0..num_items / num_groups)
                })
                .collect()
        })
        .collect();
    (features, Interactions::new(num_items, by_user).unwrap())
}

fn small_training(max_epochs: usize) -> RecommenderTrainingConfig {
    RecommenderTrainingConfig {
        learning_rate: 1e-2,
        batch_size: 64,
        max_epochs,
        evaluation_interval: 2,
        checkpoint_interval: 1,
        ..Default::default()
    }
}

fn small_run(
    training: &RecommenderTrainingConfig,
    store: Option<&CheckpointStore>,
    interrupt: &Interrupt,
    progress: &dyn Progress,
) -> Result<TrainedRecommender<TestBackend>, RecommenderTrainingError> {
    let (features, interactions) = grouped_world(80, 60, 6);
    let split = interactions.leave_last(training.validation_items, training.test_items);
    let config = MicroConfig {
        embedding_width: 16,
        num_neighbours: 4,
        ..Default::default()
    };
    let surroundings = TrainingSurroundings {
        checkpoints: store,
        log: None,
        interrupt,
        progress,
    };
    let devices = devices();
    train(
        &config,
        training,
        &features,
        &split,
        &devices.train,
        &devices.frozen,
        surroundings,
    )
}

#[test]
fn training_beats_popularity() {
    let run = small_run(&small_training(8), None, &Interrupt::default(), &Silent).unwrap();
    let (learned, floor) = (&run.report.test[0], &run.report.popularity[0]);
    assert!(
        learned.recall > 1.5 * floor.recall,
        "recall@10 {} against {}",
        learned.recall,
        floor.recall
    );
    assert_eq!(run.report.num_epochs, 8);
    let list = run.model.recommend(0, 10);
    let known = &run.model.excluded()[0];
    assert!(list.iter().all(|item| !known.contains(item)));
}

#[test]
fn a_resumed_training_equals_an_uninterrupted_one() {
    let training = small_training(5);
    let whole = small_run(&training, None, &Interrupt::default(), &Silent).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path(), &training, 2);
    let interrupt = Interrupt::default();
    let stopped = small_run(
        &training,
        Some(&store),
        &interrupt,
        &StopAfter(3, &interrupt),
    );
    assert!(matches!(
        stopped.err().unwrap(),
        RecommenderTrainingError::Interrupted { epoch: 3 }
    ));
    let resumed = small_run(&training, Some(&store), &Interrupt::default(), &Silent).unwrap();
    assert_eq!(whole.report, resumed.report);
    assert_eq!(whole.model.scores(7), resumed.model.scores(7));
}

#[test]
fn patience_ends_a_training_and_the_best_epoch_stays() {
    let training = RecommenderTrainingConfig {
        evaluation_interval: 1,
        patience: 2,
        ..small_training(200)
    };
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path(), &training, 2);
    let run = small_run(&training, Some(&store), &Interrupt::default(), &Silent).unwrap();
    let report = &run.report;
    assert!(report.num_epochs < 200, "{} epochs", report.num_epochs);
    assert_eq!(
        report.num_epochs,
        report.best_epoch + 3,
        "two misses are tolerated, the third ends it"
    );
    let (best, later): (Vec<(usize, f64)>, Vec<(usize, f64)>) = report
        .validation_recall
        .iter()
        .copied()
        .partition(|(epoch, _)| *epoch <= report.best_epoch);
    let highest = best.last().unwrap().1;
    assert!(best[..best.len() - 1].iter().all(|(_, r)| *r < highest));
    assert!(later.iter().all(|(_, recall)| *recall <= highest));
    // It has ended: the same command again adds nothing, and judges the same parameters.
    let again = small_run(&training, Some(&store), &Interrupt::default(), &Silent).unwrap();
    assert_eq!(run.report, again.report);
    assert_eq!(run.model.scores(3), again.model.scores(3));
    // What is kept are the parameters of the best epoch, not the last.
    let until_then = RecommenderTrainingConfig {
        max_epochs: report.best_epoch,
        ..training
    };
    let best = small_run(&until_then, None, &Interrupt::default(), &Silent).unwrap();
    assert_eq!(run.model.scores(3), best.model.scores(3));
}

#[test]
fn divergence_stops_with_its_place() {
    let training = RecommenderTrainingConfig {
        learning_rate: 1e38,
        ..small_training(4)
    };
    let error = small_run(&training, None, &Interrupt::default(), &Silent)
        .err()
        .unwrap();
    assert!(
        matches!(error, RecommenderTrainingError::Diverged { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("learning_rate"), "{error}");
}

/// A briefly trained model over sixty items, with feature tables that have moved.
fn judge(num_item_layers: usize, history: Option<Interactions>) -> MicroDiscriminator<TestBackend> {
    let (features, interactions) = grouped_world(80, 60, 6);
    let training = small_training(4);
    let split = interactions.leave_last(training.validation_items, training.test_items);
    let config = MicroConfig {
        embedding_width: 16,
        num_neighbours: 4,
        num_item_layers,
        original_weight: 0.7,
        ..Default::default()
    };
    let surroundings = TrainingSurroundings {
        checkpoints: None,
        log: None,
        interrupt: &Interrupt::default(),
        progress: &Silent,
    };
    let devices = devices();
    let trained = train::<TestBackend, Micro<TestBackend>>(
        &config,
        &training,
        &features,
        &split,
        &devices.train,
        &devices.frozen,
        surroundings,
    )
    .unwrap();
    let micro = trained.model.network().clone();
    let history = history.unwrap_or(split.train);
    MicroDiscriminator::new(
        RankingModel::new(config, micro, features, history, &devices.frozen).unwrap(),
        ItemSelection::all(60),
    )
}

fn row_tensor(row: &[f32]) -> Tensor<TestBackend, 2> {
    Tensor::from_data(TensorData::new(row.to_vec(), [1, row.len()]), &device())
}

#[test]
fn the_references_own_feature_gets_the_models_own_score_and_rank() {
    let judge = judge(1, None);
    let model = judge.model();
    let cases: Vec<Case> = (0..20)
        .map(|user| Case {
            user,
            reference: (user * 7) % 60,
        })
        .collect();
    for (case, judgement) in cases.iter().zip(judge.judge_references(&cases)) {
        let scores = model.scores(case.user);
        let expected = scores[case.reference];
        assert!(
            (judgement.score - expected).abs() < 1e-5,
            "{judgement:?}, {expected}"
        );
        let rank = rank_of(
            expected,
            case.reference as u32,
            &scores,
            &model.excluded()[case.user],
        );
        assert!(
            judgement.rank.abs_diff(rank as usize) <= 1,
            "{judgement:?}, {rank}"
        );
    }
}

#[test]
fn a_substituted_feature_is_judged_as_by_rebuilding_everything() {
    let judge = judge(1, None);
    let model = judge.model();
    let table = &model.features().image;
    let mut rank_difference = 0;
    let mut exchanged = 0;
    let mut count = 0;
    for reference in [0, 13, 31, 58] {
        for stranger in (1..60).step_by(9) {
            let feature: Vec<f32> = table
                .row(stranger)
                .iter()
                .zip(table.row((stranger + 5) % 60))
                .map(|(a, b)| 0.8 * a + 0.3 * b)
                .collect();
            let features = ItemFeatures::new(
                table.with_row(reference, &feature),
                model.features().text.clone(),
            )
            .unwrap();
            // The trained table's row moves with the given one.
            let mut micro = model.network().clone();
            let shift: Vec<f32> = feature
                .iter()
                .zip(table.row(reference))
                .map(|(a, b)| a - b)
                .collect();
            let range = [reference..reference + 1, 0..table.width()];
            micro.image_embedding.weight = micro.image_embedding.weight.map(|weight| {
                let row = weight.clone().slice(range.clone()) + row_tensor(&shift);
                weight.slice_assign(range.clone(), row)
            });
            let config = model.config().clone();
            let history = model.history().clone();
            let rebuilt = RankingModel::new(config, micro, features, history, &device()).unwrap();
            for user in [3, 40] {
                let judgement = judge.judge(user, reference, row_tensor(&feature))[0];
                let scores = rebuilt.scores(user);
                let expected = scores[reference];
                assert!(
                    (judgement.score - expected).abs() < 1e-5,
                    "reference {reference}, stranger {stranger}: {judgement:?}, {expected}"
                );
                let excluded = &rebuilt.excluded()[user];
                let rank = rank_of(expected, reference as u32, &scores, excluded) as usize;
                rank_difference += judgement.rank.abs_diff(rank);
                exchanged += usize::from(judgement.score != model.scores(user)[reference]);
                count += 1;
            }
        }
    }
    assert_eq!(exchanged, count, "another picture gets another score");
    let mean = rank_difference as f32 / count as f32;
    assert!(
        mean < 1.0,
        "the other items' vectors moved the rank by {mean} on average"
    );
}

#[test]
fn judgements_do_not_depend_on_the_batch() {
    let judge = judge(2, None);
    let table = &judge.model().features().image;
    let cases = [(2, 5), (2, 5), (9, 41)].map(|(user, reference)| Case { user, reference });
    let rows: Vec<Tensor<TestBackend, 2>> =
        [7, 20, 33].map(|item| row_tensor(table.row(item))).into();
    let together = judge.judge_all(&cases, Tensor::cat(rows.clone(), 0));
    for ((case, row), judgement) in cases.iter().zip(rows).zip(together) {
        let alone = judge.judge(case.user, case.reference, row)[0];
        if on_flex() {
            assert_eq!(alone, judgement);
        }
        // A GPU's kernels sum a batch of one in another order, and neighbours in the list may change places.
        let error = (alone.score - judgement.score).abs();
        assert!(
            error <= 1e-5 + 1e-4 * judgement.score.abs(),
            "{alone:?}, {judgement:?}"
        );
        assert!(
            alone.rank.abs_diff(judgement.rank) <= 1,
            "{alone:?}, {judgement:?}"
        );
    }
    let broken = judge.judge(0, 5, row_tensor(&vec![f32::NAN; table.width()]))[0];
    assert!(broken.score.is_nan());
    assert_eq!(broken.rank, 60, "a broken picture comes last");
}

#[test]
fn a_cold_reference_is_judged_by_its_neighbours() {
    let (_, interactions) = grouped_world(80, 60, 6);
    let without: Vec<Vec<usize>> = interactions
        .by_user()
        .iter()
        .map(|row| {
            row.iter()
                .map(|&i| i as usize)
                .filter(|&i| i != 12)
                .collect()
        })
        .collect();
    let judge = judge(1, Some(Interactions::new(60, without).unwrap()));
    let model = judge.model();
    let cases = [Case {
        user: 4,
        reference: 12,
    }];
    let judgement = judge.judge_references(&cases)[0];
    // By hand: the modal part of the item with the mean of its warm text neighbours.
    let row = |tensor: &Tensor<TestBackend, 2>, row: usize| -> Vec<f32> {
        tensor
            .clone()
            .slice([row..row + 1])
            .into_data()
            .iter::<f32>()
            .collect()
    };
    let embeddings = judge.stages();
    let warm: Vec<usize> = model
        .graphs()
        .text
        .original
        .of(12)
        .map(|(other, _)| other as usize)
        .filter(|&other| other != 12)
        .collect();
    let user = row(&embeddings.users, 4);
    let dot = |vector: Vec<f32>| -> f32 { vector.iter().zip(&user).map(|(a, b)| a * b).sum() };
    let modal = dot(row(&embeddings.items, 12)) - dot(row(&embeddings.collaborative_items, 12));
    let neighbours: f32 = warm
        .iter()
        .map(|&i| dot(row(&embeddings.collaborative_items, i)))
        .sum();
    let expected = modal + neighbours / warm.len() as f32;
    assert!(
        (judgement.score - expected).abs() < 1e-5,
        "{judgement:?}, {expected}"
    );
}

#[test]
fn items_kept_out_have_no_row() {
    let selection = ItemSelection::new(&[true, false, true]);
    assert_eq!(selection.places(), [0, 2]);
    assert_eq!(
        (selection.row(2), selection.row(1), selection.row(9)),
        (Some(1), None, None)
    );
    assert_eq!(selection.select(&[1.0, 2.0, 3.0], 1), [1.0, 3.0]);
    let interactions = selection.interactions(&[vec![2, 1, 0]]).unwrap();
    assert_eq!(interactions.of(0), [1, 0]);
    assert!(selection.interactions(&[vec![3]]).is_err());
}
