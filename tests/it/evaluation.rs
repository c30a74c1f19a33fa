//! Metrics by hand-computed cases, and structural similarity against scikit-image.

use ragar::evaluation::distance::{DistanceError, structural_similarity};
use ragar::evaluation::frechet::{FeatureStatistics, FrechetError, frechet_distance};
use ragar::evaluation::interval::{
    BootstrapOptions, bootstrap, bootstrap_groups, paired_difference,
};
use ragar::evaluation::paired::{compare_paired, compare_paired_groups, permutation_p_value};
use ragar::evaluation::perceptual::{perceptual_distances, picture_similarity};
use ragar::evaluation::ranking::{mean_rank_change, rank_change};
use ragar::evaluation::similarity::{Comparison, cosine, mean_cosine, similarities};
use ragar::evaluation::truth::{
    GlyphCatalogue, LabelledItems, StyleClassifier, StyleClassifierOptions, Task, Truth,
    TruthError, truth_scores,
};
use ragar::networks::clip::{Clip, normalise};
use ragar::networks::lpips::Net;
use ragar::pretrained::clip as pretrained_clip;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{Golden, TestBackend, device, golden_dir};

#[test]
fn structural_similarity_matches_scikit_image() {
    let golden = Golden::open("ssim");
    let data = golden.data("input.first");
    let shape = data.shape.to_vec();
    let first: Vec<f32> = data.iter::<f32>().collect();
    let second: Vec<f32> = golden.data("input.second").iter::<f32>().collect();
    let expected: Vec<f32> = golden.data("output.similarity").iter::<f32>().collect();
    let count = shape[1] * shape[2] * shape[3];
    for (pair, &expected) in expected.iter().enumerate() {
        let range = pair * count..(pair + 1) * count;
        let (a, b) = (&first[range.clone()], &second[range]);
        let sizes = [shape[1], shape[2], shape[3]];
        let found = structural_similarity(a, b, sizes, 1.0).unwrap();
        let error = (found - f64::from(expected)).abs();
        assert!(error < 1e-6, "pair {pair}: {found}, {expected}");
        let swapped = structural_similarity(b, a, sizes, 1.0).unwrap();
        assert!((found - swapped).abs() < 1e-12, "symmetry");
        let scaled = |values: &[f32]| values.iter().map(|v| v * 255.0).collect::<Vec<_>>();
        let bytes = structural_similarity(&scaled(a), &scaled(b), sizes, 255.0).unwrap();
        assert!(
            (found - bytes).abs() < 1e-5,
            "the data range scales with the values"
        );
    }
    let small = vec![0.0; 100];
    assert_eq!(
        structural_similarity(&small, &small, [1, 10, 10], 1.0),
        Err(DistanceError::TooSmall {
            height: 10,
            width: 10
        })
    );
    assert!(structural_similarity(&small, &small[1..], [1, 10, 10], 1.0).is_err());
}

#[test]
fn cosines_by_hand() {
    assert!((cosine(&[3.0, 4.0], &[6.0, 8.0]) - 1.0).abs() < 1e-12);
    assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
    assert_eq!(
        cosine(&[0.0, 0.0], &[1.0, 0.0]),
        0.0,
        "no direction, no similarity"
    );
    assert_eq!(mean_cosine(&[1.0, 0.0], &[]), 0.0);
    let history = [vec![1.0, 0.0], vec![0.0, 1.0]];
    let with = Comparison {
        preference_text: &[0.6, 0.8],
        history_images: &history,
        reference_text: &[-1.0, 0.0],
        reference_image: &[0.8, 0.6],
    };
    let found = similarities(&[1.0, 0.0], &with);
    for (value, expected) in [
        (found.preference_text, 60.0),
        (found.history_images, 50.0),
        (found.reference_text, -100.0),
        (found.reference_image, 80.0),
    ] {
        assert!((value - expected).abs() < 1e-4, "{value}, {expected}");
    }
}

#[test]
fn rank_changes_by_hand() {
    assert_eq!(rank_change(10, 1), 0.9);
    assert_eq!(rank_change(10, 10), 0.0);
    assert_eq!(rank_change(2, 110), -54.0);
    let interval = mean_rank_change(&[(10, 1), (4, 4)], &BootstrapOptions::default());
    assert!((interval.mean - 0.45).abs() < 1e-12);
    assert_eq!(interval.count, 2);
}

#[test]
fn intervals_cover_the_mean_as_often_as_they_say() {
    let options = BootstrapOptions {
        num_resamples: 400,
        ..Default::default()
    };
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut covered = 0;
    for _ in 0..200 {
        let sample: Vec<f64> = (0..60).map(|_| random.random_range(0.0..2.0)).collect();
        let interval = bootstrap(&sample, &options);
        assert!(interval.low <= interval.mean && interval.mean <= interval.high);
        covered += usize::from((interval.low..=interval.high).contains(&1.0));
    }
    assert!((180..=199).contains(&covered), "{covered} of 200");

    let same = bootstrap(&[0.25; 9], &options);
    assert_eq!((same.low, same.mean, same.high), (0.25, 0.25, 0.25));
    assert_eq!(bootstrap(&[], &options).count, 0);
    let first = [0.1, 0.9, 0.4, 0.8];
    assert_eq!(
        bootstrap(&first, &options),
        bootstrap(&first, &options),
        "seeded"
    );
}

#[test]
fn pairing_finds_a_difference_that_users_hide() {
    // Users differ much, methods little but always in the same direction.
    let first: Vec<f64> = (0..40).map(|user| f64::from(user) + 0.1).collect();
    let second: Vec<f64> = (0..40).map(f64::from).collect();
    let options = BootstrapOptions::default();
    let difference = paired_difference(&first, &second, &options);
    assert!(difference.excludes_zero());
    assert!((difference.mean - 0.1).abs() < 1e-9);
    assert!(!paired_difference(&first, &first, &options).excludes_zero());
}

#[test]
fn users_who_share_something_count_as_one() {
    let options = BootstrapOptions::default();
    // Ten groups of twenty users each, all alike within a group: two hundred users know as much as ten.
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let of_groups: Vec<f64> = (0..10).map(|_| random.random_range(-1.0..1.0)).collect();
    let users = 0..200;
    let values: Vec<f64> = users.clone().map(|user| of_groups[user % 10]).collect();
    let groups: Vec<usize> = users.map(|user| user % 10).collect();
    let together = bootstrap_groups(&values, &groups, &options);
    let ten = bootstrap(&of_groups, &options);
    assert_eq!(together.count, 200);
    assert!((together.mean - ten.mean).abs() < 1e-12);
    assert!((together.low - ten.low).abs() < 1e-12 && (together.high - ten.high).abs() < 1e-12);
    let apart = bootstrap(&values, &options);
    assert!(together.high - together.low > 3.0 * (apart.high - apart.low));

    // Groups of one are users, whatever their numbers, and a group more often there weighs more.
    let alone = bootstrap_groups(&of_groups, &[9, 3, 7, 1, 0, 2, 8, 4, 6, 5], &options);
    assert_eq!(alone, ten);
    let uneven = bootstrap_groups(&[1.0, 1.0, 1.0, 0.0], &[5, 5, 5, 6], &options);
    assert_eq!((uneven.low, uneven.mean, uneven.high), (0.0, 0.75, 1.0));

    // Three groups flip in eight ways: no p is below a quarter, however many users there are.
    let first = vec![Some(1.0); 30];
    let second = vec![Some(0.0); 30];
    let three: Vec<usize> = (0..30).map(|user| user / 10).collect();
    let grouped = compare_paired_groups(&first, &second, &three, &options);
    assert_eq!((grouped.p_value, grouped.difference.count), (0.25, 30));
    assert!(compare_paired(&first, &second, &options).p_value < 0.001);
}

/// Five styles × twelve glyphs: embeddings are a style direction plus a glyph direction plus noise.
struct World {
    embeddings: Vec<Vec<f32>>,
    styles: Vec<usize>,
    glyphs: Vec<usize>,
    held_out: Vec<bool>,
}

const STYLES: usize = 5;
const GLYPHS: usize = 12;

fn world(noise: f32) -> World {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut direction = |scale: f32| -> Vec<f32> {
        (0..32)
            .map(|_| scale * random.random_range(-1.0f32..1.0))
            .collect()
    };
    let style_directions: Vec<Vec<f32>> = (0..STYLES).map(|_| direction(0.6)).collect();
    let glyph_directions: Vec<Vec<f32>> = (0..GLYPHS).map(|_| direction(1.0)).collect();
    let mut world = World {
        embeddings: Vec::new(),
        styles: Vec::new(),
        glyphs: Vec::new(),
        held_out: Vec::new(),
    };
    for (glyph, glyph_direction) in glyph_directions.iter().enumerate() {
        for (style, style_direction) in style_directions.iter().enumerate() {
            let jitter = direction(noise);
            let parts = style_direction.iter().zip(glyph_direction).zip(jitter);
            world
                .embeddings
                .push(parts.map(|((a, b), c)| a + b + c).collect());
            world.styles.push(style);
            world.glyphs.push(glyph);
            world.held_out.push((glyph + style) % 6 == 0);
        }
    }
    world
}

impl World {
    fn items(&self) -> LabelledItems<'_> {
        LabelledItems {
            embeddings: &self.embeddings,
            styles: &self.styles,
            glyphs: &self.glyphs,
            held_out: &self.held_out,
        }
    }

    fn place(&self, glyph: usize, style: usize) -> usize {
        glyph * STYLES + style
    }

    /// Every held-out item as a target, seen in another style, for users who like its style.
    fn tasks(&self) -> Vec<Task> {
        (0..self.embeddings.len())
            .filter(|&target| self.held_out[target])
            .map(|target| {
                let (glyph, style) = (self.glyphs[target], self.styles[target]);
                let liked =
                    |&other: &usize| other != glyph && !self.held_out[self.place(other, style)];
                Task {
                    history: (0..GLYPHS)
                        .filter(liked)
                        .map(|other| self.place(other, style))
                        .collect(),
                    reference: self.place(glyph, (style + 1) % STYLES),
                    target,
                }
            })
            .collect()
    }
}

#[test]
fn the_judge_names_style_and_glyph() {
    let world = world(0.1);
    let judge = world
        .items()
        .judge(&StyleClassifierOptions::default())
        .unwrap();
    let tasks = world.tasks();
    assert_eq!(
        tasks.len(),
        world.held_out.iter().filter(|&&held| held).count()
    );
    let items = world.items();
    let truths: Vec<Truth> = tasks.iter().map(|task| items.truth(task)).collect();
    let bounds = items.bounds(&tasks, 0).verdicts(&truths, |item| {
        judge.name(&world.embeddings[item], Some(item))
    });
    let options = BootstrapOptions::default();
    let ceiling = truth_scores(&bounds.ceiling, &options);
    assert_eq!(ceiling.style.mean, 1.0, "the styles are linearly separable");
    assert_eq!(
        ceiling.glyph.mean, 1.0,
        "the other styles of the glyph are nearest"
    );
    assert_eq!(ceiling.both.mean, 1.0);

    let reference = truth_scores(&bounds.reference, &options);
    assert_eq!((reference.style.mean, reference.glyph.mean), (0.0, 1.0));
    let random = truth_scores(&bounds.random_history, &options);
    assert_eq!((random.style.mean, random.glyph.mean), (1.0, 0.0));
    let nearest = truth_scores(&bounds.nearest_item, &options);
    assert_eq!(
        nearest.both.mean, 0.0,
        "without the held-out pair nothing is right in both"
    );
}

#[test]
fn a_classifier_of_noise_is_at_chance_on_new_images() {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let mut noise = |count: usize| -> Vec<Vec<f32>> {
        (0..count)
            .map(|_| (0..8).map(|_| random.random_range(-1.0f32..1.0)).collect())
            .collect()
    };
    let styles: Vec<usize> = (0..200).map(|place| place % 4).collect();
    let options = StyleClassifierOptions::default();
    let classifier = StyleClassifier::fit(&noise(200), &styles, &options).unwrap();
    let fresh = noise(400);
    let right = fresh
        .iter()
        .enumerate()
        .filter(|(place, row)| classifier.predict(row) == place % 4)
        .count();
    assert!((60..=140).contains(&right), "{right} of 400, chance is 100");
}

#[test]
fn nearest_glyphs_by_hand() {
    let catalogue = GlyphCatalogue::new(
        vec![
            vec![1.0, 0.0],
            vec![0.9, 0.1],
            vec![0.0, 1.0],
            vec![-1.0, 0.0],
        ],
        vec![7, 7, 8, 9],
    )
    .unwrap();
    assert_eq!(
        catalogue.nearest(&[1.0, 0.2], 2, None),
        [7, 8],
        "distinct glyphs"
    );
    assert_eq!(
        catalogue.nearest(&[0.1, 1.0], 1, Some(2)),
        [7],
        "not compared with itself"
    );
    assert_eq!(catalogue.nearest(&[1.0, 0.0], 9, None), [7, 8, 9]);
}

#[test]
fn mismatched_labels_are_named() {
    let options = StyleClassifierOptions::default();
    let error = StyleClassifier::fit(&[vec![1.0], vec![2.0]], &[0], &options).unwrap_err();
    assert_eq!(
        error,
        TruthError::Count {
            embeddings: 2,
            labels: 1
        }
    );
    let error = GlyphCatalogue::new(vec![vec![1.0], vec![]], vec![0, 1]).unwrap_err();
    assert_eq!(
        error,
        TruthError::Width {
            row: 1,
            expected: 1,
            found: 0
        }
    );
}

#[test]
fn the_classifier_does_not_see_held_out_items() {
    let world = world(0.1);
    let judge = world
        .items()
        .judge(&StyleClassifierOptions::default())
        .unwrap();
    // Held-out labels turned upside down change nothing.
    let styles: Vec<usize> = (0..world.styles.len())
        .map(|place| {
            if world.held_out[place] {
                0
            } else {
                world.styles[place]
            }
        })
        .collect();
    let items = LabelledItems {
        styles: &styles,
        ..world.items()
    };
    let other = items.judge(&StyleClassifierOptions::default()).unwrap();
    for embedding in &world.embeddings {
        assert_eq!(judge.name(embedding, None), other.name(embedding, None));
    }
}

/// Squares of one colour blown up to the side that CLIP wants, `[n, 3, s, s]` to `[n, 3, 8 s, 8 s]`.
fn whole(squares: burn::tensor::Tensor<TestBackend, 4>) -> burn::tensor::Tensor<TestBackend, 4> {
    let [count, channels, height, width] = squares.dims();
    squares
        .reshape([count, channels, height, 1, width, 1])
        .expand([count, channels, height, 8, width, 8])
        .reshape([count, channels, 8 * height, 8 * width])
}

fn rows(tensor: burn::tensor::Tensor<TestBackend, 2>) -> Vec<Vec<f32>> {
    let [_, width] = tensor.dims();
    let values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

/// CPS, CPIS, CS and CIS of every user of the golden case, under `clip`.
fn clip_scores(clip: &Clip<TestBackend>, golden: &Golden) -> [Vec<f64>; 4] {
    let image = |squares| rows(normalise(clip.image_embeds(whole(squares))));
    let text = |name| rows(normalise(clip.text_embeds(golden.int(name))));
    let drawn = image(golden.float("input.drawn"));
    let reference = image(golden.float("input.reference"));
    let history: burn::tensor::Tensor<TestBackend, 5> = golden.float("input.history");
    let [users, count, ..] = history.dims();
    let history = image(history.flatten(0, 1));
    let preference = text("input.preference_ids");
    let words = text("input.reference_ids");
    let mut found: [Vec<f64>; 4] = Default::default();
    for user in 0..users {
        let with = Comparison {
            preference_text: &preference[user],
            history_images: &history[user * count..(user + 1) * count],
            reference_text: &words[user],
            reference_image: &reference[user],
        };
        let scores = similarities(&drawn[user], &with);
        for (column, value) in found.iter_mut().zip([
            scores.preference_text,
            scores.history_images,
            scores.reference_text,
            scores.reference_image,
        ]) {
            column.push(value);
        }
    }
    found
}

#[test]
fn clip_scores_match_the_reference_clip() {
    let golden = Golden::open("metrics");
    let folder = golden_dir("clip").join("model");
    let (_, mut clip) = pretrained_clip::open_network::<TestBackend>(&folder, &device()).unwrap();
    let worst = |found: &[Vec<f64>; 4]| -> f64 {
        let names = ["cps", "cpis", "cs", "cis"];
        let mut worst = 0f64;
        for (name, column) in names.iter().zip(found) {
            let expected = golden.data(&format!("output.{name}"));
            for (expected, found) in expected.iter::<f32>().zip(column) {
                worst = worst.max((f64::from(expected) - found).abs());
            }
        }
        worst
    };
    let error = worst(&clip_scores(&clip, &golden));
    assert!(error < 1e-5 + 1e-4 * 100.0, "{error}");
    let bias = &mut clip.vision_model.encoder.layers[0].mlp.fc1;
    bias.bias = bias.bias.take().map(|bias| bias.map(|values| values + 0.2));
    let error = worst(&clip_scores(&clip, &golden));
    assert!(error > 0.05, "a changed weight must show: {error}");
}

fn statistics(features: &burn::tensor::TensorData) -> FeatureStatistics {
    let width = features.shape[1];
    let values: Vec<f32> = features.iter::<f32>().collect();
    let mut statistics = FeatureStatistics::new(width);
    values.chunks(width).for_each(|row| statistics.add(row));
    statistics
}

#[test]
fn frechet_distances_match_scipy() {
    let golden = Golden::open("metrics");
    let of = |name: &str| statistics(&golden.data(&format!("input.{name}")));
    let (first, second, few) = (of("first"), of("second"), of("few"));
    let expected: Vec<f32> = golden.data("output.frechet").iter::<f32>().collect();
    let pairs = [(&first, &second), (&first, &few), (&few, &second)];
    for ((a, b), expected) in pairs.into_iter().zip(&expected) {
        let expected = f64::from(*expected);
        for found in [frechet_distance(a, b), frechet_distance(b, a)] {
            let error = (found.unwrap() - expected).abs();
            assert!(error < 1e-5 * expected, "{error} of {expected}");
        }
    }
    assert!(
        frechet_distance(&first, &first).unwrap() < 1e-9,
        "equal sets"
    );
    let mut other = golden.data("input.second");
    other.as_mut_slice::<f32>().unwrap()[4] += 0.5;
    let moved = frechet_distance(&first, &statistics(&other)).unwrap();
    assert!(
        (moved - f64::from(expected[0])).abs() > 1e-4,
        "one feature shows"
    );
}

#[test]
fn sets_without_a_distance_are_named() {
    let full = |count: usize, value: f32| {
        let mut statistics = FeatureStatistics::new(3);
        (0..count).for_each(|at| statistics.add(&[value, at as f32, 1.0]));
        statistics
    };
    let error = frechet_distance(&full(1, 0.0), &full(5, 0.0)).unwrap_err();
    assert_eq!(
        error,
        FrechetError::TooFew {
            first: 1,
            second: 5
        }
    );
    assert!(
        frechet_distance(&FeatureStatistics::new(3), &full(5, 0.0)).is_err(),
        "no picture"
    );
    let error = frechet_distance(&full(2, 0.0), &FeatureStatistics::new(2)).unwrap_err();
    assert_eq!(
        error,
        FrechetError::Width {
            first: 3,
            second: 2
        }
    );
    let broken = frechet_distance(&full(3, f32::NAN), &full(3, 0.0));
    assert_eq!(broken, Err(FrechetError::NotFinite));
    // Pictures that are all the same have a mean and no spread.
    let mut same = FeatureStatistics::new(2);
    let mut away = FeatureStatistics::new(2);
    for _ in 0..3 {
        same.add(&[1.0, 2.0]);
        away.add(&[4.0, -2.0]);
    }
    assert!((frechet_distance(&same, &away).unwrap() - 25.0).abs() < 1e-9);
}

#[test]
fn permutation_tests_match_scipy() {
    let golden = Golden::open("metrics");
    let data = golden.data("input.ours");
    let width = data.shape[1];
    let ours: Vec<f32> = data.iter::<f32>().collect();
    let theirs: Vec<f32> = golden.data("input.theirs").iter::<f32>().collect();
    let expected: Vec<f32> = golden.data("output.p_value").iter::<f32>().collect();
    for (row, expected) in expected.iter().enumerate() {
        let part = row * width..(row + 1) * width;
        let differences: Vec<f64> = ours[part.clone()]
            .iter()
            .zip(&theirs[part])
            .map(|(a, b)| f64::from(*a) - f64::from(*b))
            .collect();
        let found = permutation_p_value(&differences, 0);
        assert!(
            (found - f64::from(*expected)).abs() < 1e-7,
            "{found}, {expected}"
        );
        // Drawn flips are near: users without a difference make the list longer and change nothing exact.
        let mut twice = differences.clone();
        twice.extend([0.0; 20]);
        assert!((permutation_p_value(&twice, 0) - found).abs() < 1e-12);
    }
    // Under no difference p is spread evenly: small ones are rare.
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut small = 0;
    for trial in 0..100 {
        let noise: Vec<f64> = (0..24).map(|_| random.random_range(-1.0..1.0)).collect();
        small += usize::from(permutation_p_value(&noise, trial) < 0.1);
    }
    assert!((2..=22).contains(&small), "{small} of 100 below 0.1");
    assert_eq!(permutation_p_value(&[], 0), 1.0);
    assert_eq!(permutation_p_value(&[0.0, 0.0], 0), 1.0);
}

#[test]
fn users_without_a_value_are_left_out_of_pairs() {
    let first = [Some(1.0), None, Some(3.0), Some(2.0)];
    let second = [Some(0.5), Some(9.0), None, Some(2.0)];
    let compared = compare_paired(&first, &second, &BootstrapOptions::default());
    assert_eq!(compared.difference.count, 2);
    assert_eq!((compared.above, compared.below), (1, 0));
    assert!((compared.difference.mean - 0.25).abs() < 1e-12);
    let nobody = compare_paired(&[None], &[Some(1.0)], &BootstrapOptions::default());
    assert_eq!((nobody.difference.count, nobody.p_value), (0, 1.0));
}

#[test]
fn pictures_of_any_size_are_compared_at_the_drawing_s() {
    use image::{Rgb, RgbImage};

    let drawn = RgbImage::from_fn(40, 40, |x, y| Rgb([(x * 6) as u8, (y * 6) as u8, 90]));
    assert!((picture_similarity(&drawn, &drawn).unwrap() - 1.0).abs() < 1e-12);
    let larger = image::imageops::resize(&drawn, 80, 60, image::imageops::FilterType::CatmullRom);
    let found = picture_similarity(&drawn, &larger).unwrap();
    assert!((0.95..1.0).contains(&found), "{found}");
    let grey = RgbImage::from_pixel(40, 40, Rgb([128; 3]));
    assert_eq!(
        picture_similarity(&grey, &grey),
        Ok(1.0),
        "no contrast at all"
    );
    assert!(picture_similarity(&drawn, &grey).unwrap() < 0.9);
    let dot = RgbImage::new(3, 3);
    assert!(
        picture_similarity(&dot, &drawn).is_err(),
        "smaller than the window"
    );

    let network = Net::Vgg.init::<TestBackend>(&device());
    let pairs = [
        (&drawn, &drawn),
        (&drawn, &larger),
        (&dot, &drawn),
        (&grey, &drawn),
    ];
    let found = perceptual_distances(&network, &pairs, 2, &device());
    assert!(
        found[0].as_ref().unwrap().abs() < 1e-6,
        "equal pictures: {:?}",
        found[0]
    );
    assert!(found[2].is_err(), "too small for the network");
    assert!(*found[3].as_ref().unwrap() > *found[1].as_ref().unwrap());
    let alone = perceptual_distances(&network, &pairs[3..], 8, &device());
    let (alone, beside) = (alone[0].as_ref().unwrap(), found[3].as_ref().unwrap());
    assert!((alone - beside).abs() < 1e-6, "a batch changes nothing");
    assert!(perceptual_distances(&network, &[], 2, &device()).is_empty());
}
