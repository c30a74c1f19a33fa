//! Metrics by hand-computed cases, and structural similarity against scikit-image.

use ragar::evaluation::distance::{DistanceError, structural_similarity};
use ragar::evaluation::interval::{BootstrapOptions, bootstrap, paired_difference};
use ragar::evaluation::ranking::{mean_rank_change, rank_change};
use ragar::evaluation::similarity::{Comparison, cosine, mean_cosine, similarities};
use ragar::evaluation::truth::{
    GlyphCatalogue, LabelledItems, StyleClassifier, StyleClassifierOptions, Task, Truth,
    TruthError, truth_scores,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::Golden;

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
    let bounds = world.items().bounds(&judge, &tasks, 0);
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
        let truth = Truth { style: 1, glyph: 1 };
        assert_eq!(
            judge.judge(embedding, truth, None),
            other.judge(embedding, truth, None)
        );
    }
}
