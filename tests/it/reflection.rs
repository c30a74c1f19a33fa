//! The policy gradient against its closed form, rewards and advantages by hand, exploration by key.

use burn::tensor::{Tensor, TensorData};
use ragar::generation::noise::NoiseKey;
use ragar::reflection::Exploration;
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

/// `ln σ` where a graph is recorded.
fn log_sigma(sigma: f32) -> Tensor<TestBackend, 1> {
    Tensor::from_inner(Tensor::from_data([sigma.ln()], &device()))
}

#[test]
fn the_gradient_of_the_rank_loss_is_minus_the_mean_of_advantage_times_noise_over_sigma() {
    let [batch, noises, tokens, width] = [2, 3, 4, 5];
    let start: Tensor<TestBackend, 3> = exploration_noise(
        key("start"),
        Exploration::Independent,
        batch,
        [tokens, width],
        &device(),
    );
    let noise: Tensor<TestBackend, 4> = exploration_noise(
        key("noise"),
        Exploration::Independent,
        batch * noises,
        [tokens, width],
        &device(),
    )
    .reshape([batch, noises, tokens, width]);
    let weights =
        Tensor::<TestBackend, 2>::from_data([[0.5, -1.0, 2.0], [0.25, 0.0, -3.0]], &device());
    let explored = start.clone().unsqueeze_dim::<4>(1) + noise.clone().mul_scalar(SIGMA);
    let general = Tensor::<TestBackend, 3>::from_inner(start).require_grad();
    let loss = losses::rank(general.clone(), explored, weights.clone(), log_sigma(SIGMA));
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
    let loss = losses::rank(general.clone(), explored, weights, log_sigma(1.0));
    let gradient = general
        .grad(&loss.backward())
        .expect("a gradient")
        .into_scalar();
    assert!(
        gradient < 0.0,
        "descent must move towards the rewarded +1, gradient {gradient}"
    );
}

/// Gradients of the rank loss with respect to `E_gen` for many draws around one point; reward is what `taste` says of
/// each image. A row per draw.
fn gradients(
    draws: usize,
    noises: usize,
    baseline: Baseline,
    taste: impl Fn(&[f32]) -> f32,
) -> Vec<Vec<f32>> {
    const WIDTH: usize = 3;
    let noise: Vec<f32> = NoiseKey {
        noise: draws,
        ..key("draws")
    }
    .normal(draws * noises * WIDTH);
    let start = [0.3f32, -0.2, 0.5];
    let images: Vec<Vec<f32>> = noise
        .chunks(WIDTH)
        .map(|e| start.iter().zip(e).map(|(s, e)| s + SIGMA * e).collect())
        .collect();
    let rewards: Vec<Vec<f32>> = images
        .chunks(noises)
        .map(|row| row.iter().map(|image| taste(image)).collect())
        .collect();
    // A batch a draw: the batch's mean is over one sample's images.
    let weights: Vec<f32> = rewards
        .iter()
        .flat_map(|row| advantages(std::slice::from_ref(row), baseline).concat())
        .collect();
    let tensor = |values: Vec<f32>, shape: [usize; 4]| {
        Tensor::<TestBackend, 4>::from_data(TensorData::new(values, shape), &device())
    };
    let explored = tensor(images.concat(), [draws, noises, 1, WIDTH]);
    let general = tensor(start.repeat(draws), [draws, 1, 1, WIDTH]).reshape([draws, 1, WIDTH]);
    let general = Tensor::<TestBackend, 3>::from_inner(general).require_grad();
    let weights = Tensor::from_data(TensorData::new(weights, [draws, noises]), &device());
    let loss = losses::rank(general.clone(), explored, weights, log_sigma(SIGMA));
    let gradient = general.grad(&loss.backward()).expect("a gradient");
    // The loss is a mean over draws: each draw's own gradient is so many times larger.
    let values: Vec<f32> = gradient
        .mul_scalar(draws as f32)
        .into_data()
        .iter()
        .collect();
    values.chunks(WIDTH).map(<[f32]>::to_vec).collect()
}

/// Mean and standard error of each column, and the variance over all columns together.
fn moments(rows: &[Vec<f32>]) -> (Vec<(f64, f64)>, f64) {
    let count = rows.len() as f64;
    let columns: Vec<(f64, f64)> = (0..rows[0].len())
        .map(|column| {
            let values = rows.iter().map(|row| f64::from(row[column]));
            let mean = values.clone().sum::<f64>() / count;
            let variance = values.map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
            (mean, variance)
        })
        .collect();
    let total = columns.iter().map(|(_, variance)| variance).sum();
    let columns = columns
        .into_iter()
        .map(|(mean, variance)| (mean, (variance / count).sqrt()))
        .collect();
    (columns, total)
}

/// How a judge might like an image: nearer to a point is better, with an offset that baselines should remove.
fn liking(image: &[f32]) -> f32 {
    let target = [1.0f32, 0.0, -1.0];
    let distance = |(a, b): (&f32, &f32)| (a - b).powi(2);
    20.0 - image.iter().zip(&target).map(distance).sum::<f32>()
}

#[test]
fn leave_one_out_leaves_the_expected_gradient_and_takes_its_variance() {
    let (plain, plain_variance) = moments(&gradients(40_000, 3, Baseline::None, liking));
    let (less, less_variance) = moments(&gradients(40_000, 3, Baseline::LeaveOneOut, liking));
    // E[∂L/∂μ] = −∂E[R]/∂μ / 3 dimensions; E[R] = 20 − Σ (μ − t)² − 3σ².
    let start = [0.3, -0.2, 0.5];
    let target = [1.0, 0.0, -1.0];
    for (column, (a, b)) in plain.iter().zip(&less).enumerate() {
        let expected = 2.0 * (start[column] - target[column]) / 3.0;
        for (name, (mean, error)) in [("none", a), ("leave-one-out", b)] {
            let off = (mean - expected).abs();
            assert!(
                off < 4.0 * error,
                "{name}: {mean} is no {expected} ± {error}"
            );
        }
    }
    assert!(
        less_variance < 0.2 * plain_variance,
        "{less_variance} against {plain_variance}"
    );
}

#[test]
fn the_batch_mean_shortens_the_expected_gradient_by_its_own_share() {
    let (plain, _) = moments(&gradients(40_000, 3, Baseline::None, liking));
    let (mean, variance) = moments(&gradients(40_000, 3, Baseline::BatchMean, liking));
    for ((plain, e), (mean, error)) in plain.iter().zip(&mean) {
        // Each reward is a third of the mean that is taken from it.
        let expected = plain * 2.0 / 3.0;
        assert!(
            (mean - expected).abs() < 4.0 * (error + e),
            "{mean} for {expected}"
        );
    }
    assert!(variance > 0.0);
}

#[test]
fn a_reward_that_does_not_depend_on_the_image_moves_nothing() {
    let (columns, _) = moments(&gradients(40_000, 3, Baseline::None, |_| 7.0));
    for (mean, error) in columns {
        assert!(mean.abs() < 4.0 * error, "{mean} ± {error}");
    }
    let exact = gradients(10, 3, Baseline::LeaveOneOut, |_| 7.0);
    assert!(
        exact.concat().iter().all(|value| *value == 0.0),
        "{exact:?}"
    );
}

#[test]
fn ascent_finds_the_known_optimum_for_every_form_of_the_reward() {
    for form in [RewardForm::Margin, RewardForm::Hinge, RewardForm::Rank] {
        let target = [1.0f32, 0.0, -1.0];
        let judge = |image: &[f32]| {
            let distance: f32 = image
                .iter()
                .zip(&target)
                .map(|(a, b)| (a - b).powi(2))
                .sum();
            // A hundred items at growing distances: the nearer the image, the fewer are before it.
            judged(-distance, 1 + (distance * 40.0) as usize)
        };
        let (reference, keyword) = (judge(&[0.0; 3]), judge(&[0.1; 3]));
        let mut mean = vec![0.0f32; 3];
        let mut deviation = RunningDeviation::default();
        for step in 0..1500 {
            let noise = NoiseKey { step, ..key("toy") }.normal(8 * 3);
            let images: Vec<f32> = noise
                .chunks(3)
                .flat_map(|e| {
                    mean.iter()
                        .zip(e)
                        .map(|(m, e)| m + SIGMA * e)
                        .collect::<Vec<_>>()
                })
                .collect();
            // Hinge is flat beyond its margin: a wide one keeps the optimum in reach.
            let values: Vec<f32> = images
                .chunks(3)
                .map(|image| reward(form, judge(image), reference, keyword, 3.0).value)
                .collect();
            let weights = deviation.normalise(advantages(&[values], Baseline::LeaveOneOut));
            let general = Tensor::<TestBackend, 1>::from_data(&mean[..], &device());
            let general =
                Tensor::<TestBackend, 3>::from_inner(general.reshape([1, 1, 3])).require_grad();
            let explored = TensorData::new(images, [1, 8, 1, 3]);
            let explored = Tensor::<TestBackend, 4>::from_data(explored, &device());
            let weights = TensorData::new(weights.concat(), [1, 8]);
            let weights = Tensor::from_data(weights, &device());
            let loss = losses::rank(general.clone(), explored, weights, log_sigma(SIGMA));
            let gradient = general.grad(&loss.backward()).expect("a gradient");
            let rate = 0.1 / (1.0 + step as f32 / 200.0);
            for (value, gradient) in mean.iter_mut().zip(gradient.into_data().iter::<f32>()) {
                *value -= rate * gradient;
            }
        }
        for (found, wanted) in mean.iter().zip(target) {
            assert!((found - wanted).abs() < 0.15, "{form:?}: {mean:?}");
        }
    }
}

#[test]
fn a_learned_sigma_grows_where_far_images_are_rewarded() {
    let explored = Tensor::<TestBackend, 4>::from_data([[[[2.0f32]], [[-0.1]]]], &device());
    let general = Tensor::<TestBackend, 3>::zeros([1, 1, 1], &devices().train);
    let slope = |weights: [[f32; 2]; 1]| {
        let weights = Tensor::<TestBackend, 2>::from_data(weights, &device());
        let log_sigma = log_sigma(1.0).require_grad();
        let loss = losses::rank(
            general.clone(),
            explored.clone(),
            weights,
            log_sigma.clone(),
        );
        log_sigma
            .grad(&loss.backward())
            .expect("a gradient")
            .into_scalar()
    };
    // ∂ ln N/∂ ln σ = z²/σ² − 1: 3 for the far image, −0.99 for the near one.
    assert!((slope([[1.0, 0.0]]) - -1.5).abs() < 1e-5);
    assert!((slope([[0.0, 1.0]]) - 0.495).abs() < 1e-5);
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
        exploration_noise::<TestBackend>(key, Exploration::Independent, count, [2, 3], &device())
            .into_data()
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

#[test]
fn shared_noise_is_the_same_for_every_token_and_of_the_same_strength() {
    let shared = Exploration::SharedByTokens;
    let noise = exploration_noise::<TestBackend>(key("u"), shared, 2, [3, 512], &device());
    let values: Vec<f32> = noise.into_data().iter().collect();
    let rows: Vec<&[f32]> = values.chunks(512).collect();
    assert_eq!(rows[0], rows[1]);
    assert_eq!(rows[3], rows[5]);
    assert_ne!(rows[0], rows[3], "another image, another noise");
    let square = rows[0].iter().map(|v| v * v).sum::<f32>() / 512.0;
    assert!((square - 1.0).abs() < 0.2, "{square}");
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
    // One image a sample: less the mean of the other samples'.
    assert_eq!(
        advantages(&[vec![4.0], vec![1.0], vec![-2.0]], Baseline::LeaveOneOut),
        [[4.5], [0.0], [-4.5]]
    );
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
        exploration_noise(
            key(name),
            Exploration::Independent,
            2,
            [length, 8],
            &device(),
        )
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

/// Exploration along what retrieval found.
mod retrieved {
    use burn::tensor::{Tensor, TensorData, backend::Backend};
    use ragar::generation::conditioning::{Conditioning, TextEncoder};
    use ragar::generation::sample::Sample;
    use ragar::generation::shift::retrieval_shift;
    use ragar::reflection::exploration::{noise_along, retrieved_directions};

    use super::key;
    use crate::support::{TestBackend, compare, device};

    /// A prompt's length in every place of its first token, its first letter in the second.
    struct Letters;

    impl<B: Backend> TextEncoder<B> for Letters {
        fn encode(&self, prompts: &[&str]) -> Conditioning<B> {
            let device = Default::default();
            let state = |prompt: &&str| {
                let (length, first) = (prompt.len() as f32, f32::from(prompt.as_bytes()[0]));
                [length, length, first, first]
            };
            let states: Vec<f32> = prompts.iter().flat_map(state).collect();
            let rows = prompts.len();
            Conditioning {
                states: Tensor::from_data(TensorData::new(states, [rows, 2, 2]), &device),
                padding: Tensor::from_data([[false, false]], &device),
                ends: Tensor::from_data([1], &device),
            }
        }

        fn projection(&self) -> Option<Tensor<B, 2>> {
            None
        }
    }

    fn sample(retrieved: &[&str]) -> Sample {
        Sample {
            user: "u".into(),
            user_index: 0,
            reference: 0,
            reference_id: "i".into(),
            keywords: Vec::new(),
            summary: String::new(),
            preference_prompt: String::new(),
            preference_ids: Vec::new(),
            global_prompt: String::new(),
            history_prompt: String::new(),
            retrieved: Vec::new(),
            retrieved_captions: retrieved.iter().map(ToString::to_string).collect(),
            reference_caption: "aaaa".into(),
            retrieved_preference: Vec::new(),
            reference_semantic: Vec::new(),
            reference_visual: Vec::new(),
        }
    }

    #[test]
    fn the_ways_lead_from_caption_to_caption_and_have_mean_square_one() {
        let own = Tensor::<TestBackend, 3>::from_data([[[4.0, 4.0], [97.0, 93.0]]], &device());
        let ways = retrieved_directions(&sample(&["aaaaaa", "cccc", "aaaa"]), own, &Letters);
        let root = 2f32.sqrt();
        let expected = [
            // From E_gen to the reference's caption: one number differs.
            [[0.0, 0.0], [0.0, 2.0]],
            [[root, root], [0.0, 0.0]],
            [[0.0, 0.0], [root, root]],
            // Nowhere to go.
            [[0.0, 0.0], [0.0, 0.0]],
        ];
        let expected = TensorData::from(expected);
        compare("ways", &expected, &ways.into_data(), 1e-5, 1e-4);
    }

    #[test]
    fn the_shift_leads_from_the_references_caption_to_the_mean_of_the_retrieved_ones() {
        let found = sample(&["aaaaaa", "cccc", "aaaa"]);
        let nothing = sample(&[]);
        let shift = retrieval_shift::<TestBackend>(&[&found, &nothing], &Letters);
        let third = 2.0 / 3.0;
        let expected = TensorData::from([[[third, third], [third, third]], [[0.0; 2]; 2]]);
        compare("shift", &expected, &shift.into_data(), 1e-5, 1e-4);
    }

    #[test]
    fn noise_along_ways_stays_in_their_span_and_has_the_strength_of_independent_noise() {
        let [count, tokens, width] = [3, 8, 8];
        let ways = Tensor::<TestBackend, 3>::from_data(
            TensorData::new(
                key("ways").normal(count * tokens * width),
                [count, tokens, width],
            ),
            &device(),
        );
        let squares = ways.clone().powi_scalar(2).mean_dim(2).mean_dim(1);
        let ways = ways / squares.sqrt();
        let noise = noise_along(key("u"), 4000, ways.clone());
        let square: f32 = noise.clone().powi_scalar(2).mean().into_scalar();
        assert!((square - 1.0).abs() < 0.1, "mean square {square}");
        // A vector that is orthogonal to all ways sees nothing of the noise.
        let ways = ways.reshape([count, tokens * width]);
        let mut stranger = Tensor::<TestBackend, 2>::from_data(
            TensorData::new(key("stranger").normal(tokens * width), [1, tokens * width]),
            &device(),
        );
        let mut basis: Vec<Tensor<TestBackend, 2>> = Vec::new();
        for row in 0..count {
            let mut way = ways.clone().narrow(0, row, 1);
            for known in &basis {
                let share = way.clone().matmul(known.clone().transpose());
                way = way - share.matmul(known.clone());
            }
            let length = way.clone().powi_scalar(2).sum().sqrt().into_scalar();
            basis.push(way.div_scalar(length));
        }
        for known in &basis {
            let share = stranger.clone().matmul(known.clone().transpose());
            stranger = stranger - share.matmul(known.clone());
        }
        let seen = noise
            .reshape([4000, tokens * width])
            .matmul(stranger.transpose());
        let largest: f32 = seen.abs().max().into_scalar();
        assert!(largest < 1e-3, "{largest}");
    }
}

/// The reward's own gradient, by networks as small as they come.
mod direct {
    use burn::tensor::{Tensor, backend::Backend};
    use ragar::generation::generator::{GenerateOptions, Generator};
    use ragar::generation::noise::NoiseKey;
    use ragar::pretrained::diffusion;
    use ragar::reflection::discriminator::{Case, Discriminator};
    use ragar::reflection::losses;
    use ragar::reflection::reward::Judgement;

    use crate::support::{TestBackend, compare, devices, golden_dir};

    fn same<const D: usize>(
        name: &str,
        actual: Tensor<TestBackend, D>,
        expected: Tensor<TestBackend, D>,
    ) {
        let (expected, actual) = (expected.into_data(), actual.into_data());
        compare(name, &expected, &actual, 1e-5, 1e-4);
    }

    /// A score with a slope of its own in each number of the feature.
    struct Curved;

    impl<B: Backend> Discriminator<B> for Curved {
        fn judge(&self, user: usize, _reference: usize, visual: Tensor<B, 2>) -> Vec<Judgement> {
            let [_, width] = visual.dims();
            let values: Vec<f32> = visual.into_data().iter::<f32>().collect();
            let score = |row: &[f32]| {
                let terms = row.iter().enumerate();
                terms.map(|(place, x)| (user + place) as f32 * x * x).sum()
            };
            let rows = values.chunks(width);
            rows.map(|row| Judgement {
                score: score(row),
                rank: 1,
            })
            .collect()
        }
    }

    #[test]
    fn central_differences_find_the_slopes_of_each_case_its_own() {
        let device = devices().frozen;
        let visual = Tensor::<TestBackend, 2>::from_data([[0.5, -0.3], [0.2, 0.9]], &device);
        let cases = [1, 4].map(|user| Case { user, reference: 0 });
        let slopes = Curved.score_gradient(&cases, visual);
        // 2 · (user + place) · x
        let expected = [[1.0, -1.2], [1.6, 9.0]];
        same(
            "slopes",
            slopes,
            Tensor::<TestBackend, 2>::from_data(expected, &device),
        );
    }

    fn noise(stream: &str, count: usize) -> Vec<f32> {
        let key = NoiseKey {
            seed: 3,
            stream,
            user: "u",
            item: "i",
            noise: 0,
            step: 0,
        };
        key.normal(count)
    }

    fn options() -> GenerateOptions {
        GenerateOptions {
            num_steps: 3,
            guidance_scale: 2.0,
            ..Default::default()
        }
    }

    /// Conditioning, the empty prompt's, latents.
    fn inputs() -> (
        Tensor<TestBackend, 3>,
        Tensor<TestBackend, 3>,
        Tensor<TestBackend, 4>,
    ) {
        let device = devices().frozen;
        let states = |stream: &str, batch: usize| {
            Tensor::<TestBackend, 1>::from_data(noise(stream, batch * 16 * 32).as_slice(), &device)
                .reshape([batch, 16, 32])
        };
        let latents =
            Tensor::<TestBackend, 1>::from_data(noise("latent", 2 * 4 * 64).as_slice(), &device);
        (
            states("prompt", 2),
            states("empty", 1),
            latents.reshape([2, 4, 8, 8]),
        )
    }

    fn generator() -> Generator<TestBackend> {
        let folder = golden_dir("pipeline").join("model");
        let parts = diffusion::open::<TestBackend>(&folder, &devices().frozen).unwrap();
        Generator::new(parts.unet, parts.vae, parts.scheduler)
    }

    /// Mean of the images' squares, whose gradient is not the same everywhere.
    fn energy(image: Tensor<TestBackend, 4>) -> Tensor<TestBackend, 1> {
        image.powi_scalar(2).mean()
    }

    #[test]
    fn a_tracked_drawing_is_the_same_image_however_many_calls_are_tracked() {
        let (prompt, empty, latents) = inputs();
        let generator = generator();
        let unused = |_: usize| -> Tensor<TestBackend, 4> { panic!("a sampler without noise") };
        let plain = generator
            .generate(
                prompt.clone(),
                empty.clone(),
                latents.clone(),
                &unused,
                &options(),
            )
            .unwrap();
        let tracked = Generator::<TestBackend>::tracked(&generator);
        for calls in [1, 2, 3, 1000] {
            let image = tracked
                .generate_tracked(
                    &generator,
                    Tensor::from_inner(prompt.clone()),
                    empty.clone(),
                    latents.clone().into(),
                    &unused,
                    &options(),
                    calls,
                )
                .unwrap();
            same("image", image.inner(), plain.clone());
        }
    }

    #[test]
    fn the_gradient_through_every_call_is_the_slope_of_the_drawing() {
        let (prompt, empty, latents) = inputs();
        let generator = generator();
        let tracked = Generator::<TestBackend>::tracked(&generator);
        let unused = |_: usize| -> Tensor<TestBackend, 4> { panic!("a sampler without noise") };
        let gradient = |calls: usize| {
            let leaf = Tensor::<TestBackend, 3>::from_inner(prompt.clone()).require_grad();
            let (empty, latents) = (empty.clone(), latents.clone());
            let image = tracked
                .generate_tracked(
                    &generator,
                    leaf.clone(),
                    empty,
                    latents.into(),
                    &unused,
                    &options(),
                    calls,
                )
                .unwrap();
            leaf.grad(&energy(image).backward()).expect("a gradient")
        };
        let whole = gradient(1000);
        // Along the gradient itself the slope is its length.
        let length = whole.clone().powi_scalar(2).sum().sqrt().into_scalar();
        let direction = whole.clone().div_scalar(length);
        let at = |distance: f32| {
            let moved = prompt.clone() + direction.clone().mul_scalar(distance);
            let (empty, latents) = (empty.clone(), latents.clone());
            let image = generator
                .generate(moved, empty, latents, &unused, &options())
                .unwrap();
            energy(image).into_scalar()
        };
        let step = 0.05;
        let slope = (at(step) - at(-step)) / (2.0 * step);
        assert!(
            (slope - length).abs() < 0.03 * length,
            "slope {slope}, length of the gradient {length}"
        );
        // A gradient through the last call alone is another one, and not nothing.
        let last = gradient(1);
        let apart = (whole - last.clone())
            .powi_scalar(2)
            .sum()
            .sqrt()
            .into_scalar();
        let last = last.powi_scalar(2).sum().sqrt().into_scalar();
        assert!(last > 0.0 && apart > 0.01 * length, "{last} and {apart}");
    }

    #[test]
    fn the_surrogate_has_the_reward_s_gradient_over_the_batch() {
        let (prompt, _, _) = inputs();
        let reward = prompt.clone().mul_scalar(3.0);
        let general = Tensor::<TestBackend, 3>::from_inner(prompt).require_grad();
        let loss = losses::direct_rank(general.clone(), reward.clone());
        let gradient = general.grad(&loss.backward()).expect("a gradient");
        same("gradient", gradient, reward.mul_scalar(-0.5));
        assert!(loss.into_scalar().abs() < 1e-6);
    }
}
