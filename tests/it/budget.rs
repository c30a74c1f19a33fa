//! Device memory from configurations alone.

use std::path::Path;

use ragar::app::budget::{Budget, Shapes};
use ragar::app::config::RunConfig;

use crate::support::{devices, golden_dir};

/// The configuration of an A100 over the published networks' shapes.
fn budget(file: &str, arguments: &[&str]) -> Budget {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("configs")
        .join(file);
    let shapes = golden_dir("shapes");
    let named = [
        ("language_model", "llama-2-7b"),
        ("clip", "clip-vit-large-patch14"),
        ("captioner", "blip2-opt-2.7b"),
        ("generator", "stable-diffusion-v1-5"),
    ];
    let named = named.map(|(key, name)| format!("models.{key}={}", shapes.join(name).display()));
    let arguments = arguments.iter().map(ToString::to_string).chain(named);
    let config = RunConfig::load(Some(&path), &arguments.collect::<Vec<_>>()).unwrap();
    Budget::of(&config, &Shapes::read(&config).unwrap(), &devices()).unwrap()
}

#[test]
fn parameters_are_those_of_the_published_networks() {
    let budget = budget("a100-pog.toml", &[]);
    let count = |what: &str| {
        let mut lines = budget
            .weights
            .iter()
            .chain(&budget.training)
            .chain(&budget.preparation);
        let line = lines.find(|line| line.what == what);
        line.unwrap_or_else(|| panic!("no line {what}")).numbers
    };
    assert_eq!(count("language model"), 6_738_415_616);
    assert_eq!(count("CLIP"), 427_616_513);
    assert_eq!(count("captioner"), 3_744_679_936);
    assert_eq!(count("denoising network"), 859_520_964);
    // Rank 8 on queries and values of 32 layers; the published mapper.
    assert_eq!(count("adapter"), 32 * 2 * 8 * (4096 + 4096));
    assert_eq!(count("mapper"), 31_958_784);
    let line = &budget.weights[0];
    assert_eq!(line.bytes, line.numbers * 2, "half precision");
}

#[test]
fn the_shipped_configurations_fit_a_card_of_40_gb() {
    for file in ["a100-pog.toml", "a100-movielens.toml", "a100-ser30k.toml"] {
        let fitting = budget(file, &[]);
        assert!(fitting.total < 40 << 30, "{file}: {}", fitting.total);
        assert!(fitting.total_of_preparation < 40 << 30, "{file}");
        assert!(fitting.total_with_segments < fitting.total);
        let single = budget(file, &["models.dtype=f32"]);
        assert!(single.total > 40 << 30, "{file}: {}", single.total);
        let larger = budget(file, &["training.batch_size=16"]);
        assert!(larger.total > fitting.total + (10 << 30), "{file}");
    }
}
