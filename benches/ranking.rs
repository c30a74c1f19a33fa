//! What the ranking models cost, part by part, on made-up catalogues: `cargo bench --bench ranking`.
//!
//! The device is `RAGAR_BENCH_DEVICE`, by default `flex`. For whole epochs beside PyTorch see
//! `benches/compare/ranking.py`. Timings of one machine say little: compare in one sitting.

use std::hint::black_box;
use std::time::Duration;

use burn::module::AutodiffModule;
use burn::tensor::backend::Backend as _;
use burn::tensor::{Device, Tensor, TensorData};
use criterion::{BenchmarkId, Criterion, criterion_group};
use ragar::app::backend::{self, Backend, Devices};
use ragar::app::pool::in_pool;
use ragar::recommender::contrastive::contrastive;
use ragar::recommender::light_gcn::{LightGcn, Nodes};
use ragar::recommender::neighbours::{Neighbours, unit_rows};
use ragar::recommender::step::Batch;
use ragar::recommender::{
    FeatureTable, Interactions, ItemFeatures, ItemSelection, LightGcnRecommender, Micro,
    MicroConfig, RankingModel, Recommender, TrainableRecommender,
};
use ragar::reflection::discriminator::{Discriminator, MicroDiscriminator};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const NUM_USERS: usize = 1000;
const WIDTH: usize = 64;

fn devices() -> Devices {
    let name = std::env::var("RAGAR_BENCH_DEVICE").unwrap_or_else(|_| "flex".into());
    backend::open(&name).expect("RAGAR_BENCH_DEVICE must be usable")
}

fn finished(device: &Device<Backend>) {
    Backend::sync(device).expect("the device must answer");
}

fn values(count: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(count as u64);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn rows(num_rows: usize, device: &Device<Backend>) -> Tensor<Backend, 2> {
    let data = TensorData::new(values(num_rows * WIDTH), [num_rows, WIDTH]);
    Tensor::from_data(data, device)
}

/// Users with twenty items each.
fn interactions(num_items: usize) -> Interactions {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let by_user = (0..NUM_USERS)
        .map(|_| (0..20).map(|_| random.random_range(0..num_items)).collect())
        .collect();
    Interactions::new(num_items, by_user).expect("items within the catalogue")
}

fn features(num_items: usize) -> ItemFeatures {
    let table = |name| {
        FeatureTable::new(name, num_items, WIDTH, values(num_items * WIDTH)).expect("a table")
    };
    ItemFeatures::new(table("image"), table("text")).expect("tables of one catalogue")
}

fn batch(history: &Interactions) -> Batch {
    let users = (0..NUM_USERS as u32).collect();
    let positives = history.by_user().iter().map(|items| items[0]).collect();
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let negatives = (0..NUM_USERS)
        .map(|_| random.random_range(0..history.num_items() as u32))
        .collect();
    Batch {
        users,
        positives,
        negatives,
        contrasted: Vec::new(),
    }
}

fn graphs(criterion: &mut Criterion) {
    let device = devices().frozen;
    let mut group = criterion.benchmark_group("graphs");
    for num_items in [5_000, 20_000] {
        let table = rows(num_items, &device);
        group.bench_with_input(
            BenchmarkId::new("ten nearest neighbours", num_items),
            &table,
            |bencher, table| {
                bencher.iter(|| black_box(Neighbours::nearest(table.clone(), 10, 2048)))
            },
        );
        let graph = LightGcn::new(&interactions(num_items), 2, 0, &device);
        let (users, items) = (rows(NUM_USERS, &device), rows(num_items, &device));
        group.bench_with_input(
            BenchmarkId::new("two layers and back", num_items),
            &graph,
            |bencher, graph: &LightGcn<Backend>| {
                bencher.iter(|| {
                    let nodes = graph.propagate(Nodes {
                        users: users.clone(),
                        items: items.clone(),
                    });
                    black_box(graph.propagate_back(nodes));
                    finished(&device);
                });
            },
        );
    }
}

fn contrast(criterion: &mut Criterion) {
    let device = devices().frozen;
    let mut group = criterion.benchmark_group("contrastive loss with gradient");
    for num_items in [1_000, 4_000, 8_000] {
        let (z, u) = (
            unit_rows(rows(num_items, &device)),
            unit_rows(rows(num_items, &device) + 0.3),
        );
        group.bench_with_input(
            BenchmarkId::from_parameter(num_items),
            &num_items,
            |bencher, _| {
                bencher.iter(|| {
                    black_box(contrastive(z.clone(), u.clone(), 0.5, 2048));
                    finished(&device);
                });
            },
        );
    }
}

fn steps(criterion: &mut Criterion) {
    let devices = devices();
    let mut group = criterion.benchmark_group("step of 1,000 triples");
    for num_items in [4_000, 20_000] {
        let (features, history) = (features(num_items), interactions(num_items));
        let triples = batch(&history);
        let config = MicroConfig {
            contrastive_items: 2048,
            ..MicroConfig::default()
        };
        let network =
            LightGcnRecommender::<Backend>::initial(&config, &history, &features, &devices.train);
        let graph = network
            .valid()
            .graphs(&config, &history, &features, &devices.frozen);
        group.bench_function(BenchmarkId::new("LightGCN", num_items), |bencher| {
            bencher.iter(|| {
                black_box(network.fit(&graph, &config, &triples, false));
                finished(&devices.frozen);
            });
        });
        let network = Micro::<Backend>::initial(&config, &history, &features, &devices.train);
        let graph = network
            .valid()
            .graphs(&config, &history, &features, &devices.frozen);
        let triples = Batch {
            contrasted: (0..2048).collect(),
            ..triples
        };
        group.bench_function(
            BenchmarkId::new("MICRO, 2,048 items contrasted", num_items),
            |bencher| {
                bencher.iter(|| {
                    black_box(network.fit(&graph, &config, &triples, false));
                    finished(&devices.frozen);
                });
            },
        );
    }
}

fn judging(criterion: &mut Criterion) {
    let device = devices().frozen;
    let mut group = criterion.benchmark_group("1,000 pictures in an item's place");
    for num_items in [1_000, 20_000] {
        let (features, history) = (features(num_items), interactions(num_items));
        let config = MicroConfig::default();
        let network = Micro::<Backend>::initial(&config, &history, &features, &device);
        let model = RankingModel::new(config, network, features, history, &device)
            .expect("a model of this catalogue");
        let judge = MicroDiscriminator::new(model, ItemSelection::all(num_items));
        let pictures = rows(1000, &device);
        group.bench_function(BenchmarkId::from_parameter(num_items), |bencher| {
            bencher.iter(|| black_box(judge.judge(3, 7, pictures.clone())));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    targets = graphs, contrast, steps, judging
}

fn main() {
    // As the program computes.
    in_pool(None, || {
        benches();
        Criterion::default().configure_from_args().final_summary();
    });
}
