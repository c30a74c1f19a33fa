//! From a history to a sample: whose keywords the generator is told.

use std::path::PathBuf;

use ragar::data::history::History;
use ragar::data::item::{Catalogue, Item};
use ragar::generation::keywords::{KeywordConfig, PromptKeywords, UserKeywords};
use ragar::generation::sample::Sample;
use ragar::preparation::{ItemFeatures, Preparation, PreparationConfig};
use ragar::retrieval::RetrievalConfig;
use ragar::text::TextTokenizer;
use ragar::text::keyword::PoolConfig;
use ragar::text::prompt::PromptConfig;

use crate::support::golden_dir;

/// Captions point at degrees of a circle; the last item is the reference, at none.
const ITEMS: [(&str, f32, &str); 6] = [
    ("car", 80.0, "flat transport, car"),
    ("pear", 10.0, "3d food, pear"),
    ("bus", 70.0, "flat transport, bus"),
    ("plum", 20.0, "shaded food, plum"),
    ("ship", 60.0, "flat transport, ship"),
    ("popcorn, movie", 0.0, "flat food, popcorn"),
];

fn sample(keywords: &KeywordConfig, k: usize, preparation: &PreparationConfig) -> Sample {
    let items = ITEMS.map(|(text, ..)| Item {
        id: text.into(),
        image: PathBuf::new(),
        text: text.into(),
    });
    let direction = |degrees: f32| vec![degrees.to_radians().cos(), degrees.to_radians().sin()];
    let features = ItemFeatures {
        captions: ITEMS.map(|(text, ..)| format!("a {text}")).into(),
        semantic: ITEMS.map(|(_, degrees, _)| direction(degrees)).into(),
        visual: ITEMS.map(|(_, degrees, _)| direction(degrees)).into(),
        keywords: ITEMS.map(|(.., keywords)| keywords.into()).into(),
    };
    let history = History {
        user: "u".into(),
        history: vec![0, 1, 2, 3, 4],
        reference: 5,
        target: None,
        split: None,
    };
    let words = UserKeywords {
        keywords: vec!["flat transport".into()],
        summary: "flat transport".into(),
    };
    let retrieval = RetrievalConfig {
        k,
        ..RetrievalConfig::default()
    };
    let tokenizer = TextTokenizer::open(&golden_dir("pipeline").join("model/tokenizer")).unwrap();
    let preparation = Preparation {
        catalogue: &Catalogue::new(items.into()).unwrap(),
        items: &features,
        prompts: &PromptConfig::default(),
        tokenizer: &tokenizer,
        max_prompt_tokens: 77,
        retrieval: &retrieval,
        keywords,
        config: preparation,
    };
    preparation.sample(&history, Some(0), &words).unwrap()
}

fn retrieved(min_count: usize, num_kept: usize) -> KeywordConfig {
    KeywordConfig {
        prompt: PromptKeywords::Retrieved,
        retrieved: PoolConfig {
            min_count,
            num_kept,
        },
        ..KeywordConfig::default()
    }
}

#[test]
fn the_generator_is_told_the_history_s_keywords_or_those_of_what_was_retrieved() {
    let plain = PreparationConfig::default();
    let history = "flat transport, popcorn, movie";
    let paper = sample(&KeywordConfig::default(), 3, &plain);
    assert_eq!(
        (&*paper.global_prompt, &*paper.history_prompt),
        (history, history)
    );

    // Of what is retrieved each keyword stands there once: the most similar item's come first.
    let ours = sample(&retrieved(1, 2), 3, &plain);
    assert_eq!(ours.global_prompt, "3d food, pear, popcorn, movie");
    assert_eq!(ours.retrieved, [1, 3, 4]);
    // Nothing else is told otherwise.
    assert_eq!(
        Sample {
            global_prompt: paper.global_prompt.clone(),
            ..ours
        },
        paper
    );
    // Five items: what three of them share comes before all.
    let all = sample(&retrieved(1, 2), 5, &plain);
    assert_eq!(all.global_prompt, "flat transport, 3d food, popcorn, movie");

    // Where nothing is left, the history's stand there.
    for (k, min_count) in [(3, 2), (0, 1)] {
        let empty = sample(&retrieved(min_count, 2), k, &plain);
        assert_eq!(empty.global_prompt, history);
    }

    let label = PreparationConfig {
        reference_parts: 1,
        ..plain
    };
    let short = sample(&retrieved(1, 1), 3, &label);
    assert_eq!(short.global_prompt, "3d food, popcorn");
    assert_eq!(short.history_prompt, "flat transport, popcorn");
}
