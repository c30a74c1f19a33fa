//! Retrieval by cases worked out by hand.

use ragar::retrieval::correlation::cosine;
use ragar::retrieval::fusion::weights;
use ragar::retrieval::{Normaliser, RetrievalConfig, Retrieved, fuse, retrieve};

const REFERENCE: [f32; 2] = [1.0, 0.0];

#[test]
fn keeps_the_most_similar_and_prefers_the_recent_of_equals() {
    // Cosines 0.6, 1, 0, 0.6: the two 0.6 tie, and place 3 is more recent than place 0.
    let history: [&[f32]; 4] = [&[3.0, 4.0], &[2.0, 0.0], &[0.0, 1.0], &[0.6, -0.8]];
    let found = retrieve(&history, &REFERENCE, 2);
    assert_eq!(found.positions, [1, 3]);
    assert!((found.similarities[0] - 1.0).abs() < 1e-6);
    assert!((found.similarities[1] - 0.6).abs() < 1e-6);
}

#[test]
fn a_short_history_is_kept_whole() {
    let found = retrieve(&[&[0.0, 1.0]], &REFERENCE, 5);
    assert_eq!(found.positions, [0]);
    assert!(retrieve(&[], &REFERENCE, 5).positions.is_empty());
}

#[test]
fn a_vector_without_length_is_similar_to_nothing() {
    assert_eq!(cosine(&[0.0, 0.0], &REFERENCE), 0.0);
}

#[test]
fn weights_are_the_clamped_similarities_over_their_sum() {
    let sum = RetrievalConfig::default();
    assert_eq!(weights(&[0.6, 0.2, -0.5], &sum), [0.75, 0.25, 0.0]);
    assert_eq!(
        weights(&[-1.0, -0.5], &sum),
        [0.5, 0.5],
        "none positive: equal"
    );
    let softmax = RetrievalConfig {
        normaliser: Normaliser::Softmax,
        temperature: 0.5,
        ..sum
    };
    let found = weights(&[0.5, 0.0], &softmax);
    let expected = 1.0f32.exp() / (1.0 + 1.0f32.exp());
    assert!((found[0] - expected).abs() < 1e-6, "{found:?}");
}

#[test]
fn the_preference_is_the_weighted_mean_of_the_images() {
    let retrieved = Retrieved {
        positions: vec![2, 0],
        similarities: vec![0.6, 0.2],
    };
    let visual: [&[f32]; 3] = [&[1.0, 0.0], &[9.0, 9.0], &[0.0, 2.0]];
    let preference = fuse(&retrieved, &visual, &RetrievalConfig::default());
    assert_eq!(preference.0, [0.25, 1.5]);
}
