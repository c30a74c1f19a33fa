//! The policy gradient against its closed form, rewards and advantages by hand, exploration by key.

use burn::tensor::{Tensor, TensorData};
use ragar::generation::noise::NoiseKey;
use ragar::reflection::exploration::exploration_noise;
use ragar::reflection::losses::{self, Distance};
use ragar::reflection::reward::{
    Baseline, Judgement, RewardForm, RunningDeviation, advantages, reward,
};

use crate::support::{TestBackend, compare, device, devices};

const SIGMA: f32 = 0.3;

fn key(user: &str) -> NoiseKey<'_> {
    NoiseKey {
        seed: 7,
        stream: "exploration",
        user,
        item: "i",
        noise: 0,
        step: 3,
    }
}

#[test]
fn the_gradient_of_the_rank_loss_is_minus_the_mean_of_advantage_times_noise_over_sigma() {
    let [batch, noises, tokens, width] = [2, 3, 4, 5];
    let start: Tensor<TestBackend, 3> =
        exploration_noise(key("start"), batch, [tokens, width], &device());
    let noise: Tensor<TestBackend, 4> =
        exploration_noise(key("noise"), batch * noises, [tokens, width], &device())
            .reshape([batch, noises, tokens, width]);
    let weights =
        Tensor::<TestBackend, 2>::from_data([[0.5, -1.0, 2.0], [0.25, 0.0, -3.0]], &device());
    let explored = start.clone().unsqueeze_dim::<4>(1) + noise.clone().mul_scalar(SIGMA);
    let general = Tensor::<TestBackend, 3>::from_inner(start).require_grad();
    let loss = losses::rank(general.clone(), explored, weights.clone(), SIGMA);
    let gradient = general.grad(&loss.backward()).expect("a gradient");

    let scale = -1.0 / (batch * noises * tokens * width) as f32 / SIGMA;
    let weighted = noise * weights.reshape([batch, noises, 1, 1]);
    let expected = weighted
        .sum_dim(1)
        .reshape([batch, tokens, width])
        .mul_scalar(scale);
    compare(
        "gradient",
        &expected.into_data(),
        &gradient.into_data(),
        1e-8,
        1e-4,
    );
}

#[test]
fn a_step_along_the_gradient_raises_the_density_of_the_rewarded_image() {
    let explored = Tensor::<TestBackend, 4>::from_data([[[[1.0f32]], [[-1.0]]]], &device());
    let weights = Tensor::<TestBackend, 2>::from_data([[1.0f32, -1.0]], &device());
    let general = Tensor::<TestBackend, 3>::zeros([1, 1, 1], &devices().train).require_grad();
    let loss = losses::rank(general.clone(), explored, weights, 1.0);
    let gradient = general
        .grad(&loss.backward())
        .expect("a gradient")
        .into_scalar();
    assert!(
        gradient < 0.0,
        "descent must move towards the rewarded +1, gradient {gradient}"
    );
}

#[test]
fn distances_by_hand() {
    let a = Tensor::<TestBackend, 2>::from_data([[3.0f32, 4.0], [1.0, 0.0]], &device());
    let b = Tensor::<TestBackend, 2>::from_data([[3.0f32, 0.0], [0.0, 2.0]], &device());
    let mse = Distance::Mse.mean(a.clone(), b.clone()).into_scalar();
    assert!((mse - 21.0 / 4.0).abs() < 1e-6, "{mse}");
    let cosine = Distance::Cosine.mean(a, b).into_scalar();
    assert!((cosine - (0.4 + 1.0) / 2.0).abs() < 1e-6, "{cosine}");
}

#[test]
fn noise_depends_on_its_key_alone() {
    let of = |key: NoiseKey<'_>, count| {
        exploration_noise::<TestBackend>(key, count, [2, 3], &device()).into_data()
    };
    let three: Vec<f32> = of(key("u"), 3).iter::<f32>().collect();
    let one: Vec<f32> = of(
        NoiseKey {
            noise: 0,
            ..key("u")
        },
        1,
    )
    .iter::<f32>()
    .collect();
    assert_eq!(
        three[..6],
        one,
        "the first noise is the same however many follow"
    );
    let other: Vec<f32> = of(key("v"), 1).iter::<f32>().collect();
    assert_ne!(one, other);
    assert_ne!(
        NoiseKey {
            user: "ab",
            item: "c",
            ..key("")
        }
        .normal(2),
        NoiseKey {
            user: "a",
            item: "bc",
            ..key("")
        }
        .normal(2),
        "fields must not run into each other"
    );
}

fn judged(score: f32, rank: usize) -> Judgement {
    Judgement { score, rank }
}

#[test]
fn rewards_by_hand() {
    let of = |form| reward(form, judged(2.0, 5), judged(1.0, 20), judged(1.9, 6), 0.2).value;
    assert!((of(RewardForm::Margin) - (2.0 - 1.9 - 0.2)).abs() < 1e-6);
    assert!(
        (of(RewardForm::Hinge) - -(0.2 - 0.1)).abs() < 1e-6,
        "the reference is beaten by more"
    );
    assert!((of(RewardForm::Rank) - (15.0 / 20.0 - 0.2)).abs() < 1e-6);
}

#[test]
fn advantages_by_hand() {
    let rewards = vec![vec![1.0, 2.0, 6.0], vec![-1.0, 0.0, 1.0]];
    assert_eq!(advantages(&rewards, Baseline::None), rewards);
    assert_eq!(
        advantages(&rewards, Baseline::BatchMean),
        [[-0.5, 0.5, 4.5], [-2.5, -1.5, -0.5]]
    );
    assert_eq!(
        advantages(&rewards, Baseline::LeaveOneOut),
        [[-3.0, -1.5, 4.5], [-1.5, 0.0, 1.5]]
    );
    assert_eq!(advantages(&[vec![4.0]], Baseline::LeaveOneOut), [[4.0]]);
}

#[test]
fn normalised_advantages_have_the_running_deviation_one() {
    let mut deviation = RunningDeviation::default();
    let scaled = deviation.normalise(vec![vec![3.0, -3.0], vec![3.0, -3.0]]);
    assert_eq!(scaled, [[1.0, -1.0], [1.0, -1.0]]);
    let scaled = deviation.normalise(vec![vec![0.0; 12]]);
    assert_eq!(scaled, [[0.0; 12]]);
    let scaled = deviation.normalise(vec![vec![1.5]]);
    let expected = 1.5 / ((36.0f32 + 2.25) / 17.0).sqrt();
    assert!((scaled[0][0] - expected).abs() < 1e-5);
}

mod calibrator {
    use burn::tensor::{Bool, Int};
    use ragar::generation::calibrator::{CalibratorConfig, pool_end, pool_mean};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn states(name: &str, length: usize) -> Tensor<TestBackend, 3> {
        exploration_noise(key(name), 2, [length, 8], &device())
    }

    fn padding(rows: [[bool; 5]; 2]) -> Tensor<TestBackend, 2, Bool> {
        Tensor::from_data(TensorData::from(rows), &device())
    }

    #[test]
    fn training_starts_from_the_global_preference() {
        let calibrator = CalibratorConfig {
            num_heads: 2,
            ..Default::default()
        }
        .init(8, &mut ChaCha8Rng::seed_from_u64(1), &device());
        let none = padding([[false; 5]; 2]);
        let global = states("global", 3);
        let general = calibrator.forward(global.clone(), states("multimodal", 5), none);
        assert_eq!(general.into_data(), global.into_data());
    }

    #[test]
    fn padding_changes_nothing() {
        let weight = Tensor::<TestBackend, 2>::eye(8, &device());
        let calibrator = CalibratorConfig {
            num_heads: 2,
            ..Default::default()
        }
        .init(8, &mut ChaCha8Rng::seed_from_u64(1), &device())
        .with_output(weight);
        let mask = padding([[false, false, true, false, true], [false; 5]]);
        let multimodal = states("multimodal", 5);
        let junk = mask.clone().float().reshape([2, 5, 1]).mul_scalar(50.0);
        let plain = calibrator.forward(states("global", 3), multimodal.clone(), mask.clone());
        let moved = calibrator.forward(states("global", 3), multimodal + junk, mask);
        compare(
            "general",
            &plain.clone().into_data(),
            &moved.into_data(),
            1e-6,
            0.0,
        );
        let difference = (plain - states("global", 3)).abs().max().into_scalar();
        assert!(difference > 0.01, "the attention must act");
    }

    #[test]
    fn pools_by_hand() {
        let values = [[[1.0f32, 2.0], [3.0, 4.0], [9.0, 9.0]]];
        let states = Tensor::<TestBackend, 3>::from_data(values, &device());
        let mask = Tensor::<TestBackend, 2, Bool>::from_data([[false, false, true]], &device());
        let mean: Vec<f32> = pool_mean(states.clone(), mask).into_data().iter().collect();
        assert_eq!(mean, [2.0, 3.0]);
        let ends = Tensor::<TestBackend, 1, Int>::from_data([1], &device());
        let projection = Tensor::from_data([[0.0f32, 1.0], [1.0, 0.0]], &device());
        let end: Vec<f32> = pool_end(states, ends, projection)
            .into_data()
            .iter()
            .collect();
        assert!(
            (end[0] - 0.8).abs() < 1e-6 && (end[1] - 0.6).abs() < 1e-6,
            "{end:?}"
        );
    }
}
