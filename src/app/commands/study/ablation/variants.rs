//! What the ablation changes, one thing at a time.

use crate::app::config::RunConfig;
use crate::generation::keywords::PromptKeywords;
use crate::reflection::reward::{Baseline, RewardForm};
use crate::reflection::{Exploration, RewardGradient};

/// The method with one thing changed.
pub(super) struct Variant {
    pub(super) group: &'static str,
    pub(super) name: String,
    pub(super) config: RunConfig,
}

impl Variant {
    /// Does `word` name it, or its group?
    pub(super) fn is_called(&self, word: &str) -> bool {
        self.group == word || slug(&self.name) == word
    }
}

/// What is compared with: the configuration as it is.
pub(super) const FULL: &str = "as configured";
/// The method before its first step: `E_gen = E_K`.
pub(super) const UNTRAINED: &str = "untrained";

/// The method without each of its parts and with each of our options, where that differs from `config`.
pub(super) fn variants(config: &RunConfig) -> Vec<Variant> {
    let mut all = Vec::new();
    let mut add = |group, name: String, change: &dyn Fn(&mut RunConfig)| {
        let mut changed = config.clone();
        change(&mut changed);
        // What changes nothing is the method as configured.
        if changed != *config {
            let config = changed;
            all.push(Variant {
                group,
                name,
                config,
            });
        }
    };
    add("retrieval", "without retrieval".into(), &|c| {
        c.retrieval.k = 0
    });
    for k in [1, 3, 5, 8, 10, 15, 20] {
        add("retrieval", format!("k = {k}"), &|c| c.retrieval.k = k);
    }
    for (name, prompt) in [
        ("keywords of the whole history", PromptKeywords::History),
        (
            "keywords of what retrieval found",
            PromptKeywords::Retrieved,
        ),
    ] {
        add("retrieval", name.into(), &|c| c.keywords.prompt = prompt);
    }
    add("noises", "without the rank reward".into(), &|c| {
        c.reflection.num_noises = 0
    });
    for n in [1, 2, 3, 5] {
        add("noises", format!("n = {n}"), &|c| {
            c.reflection.num_noises = n
        });
    }
    add("losses", "without L_rank".into(), &|c| {
        c.reflection.num_noises = 0
    });
    add("losses", "without L_cal".into(), &|c| {
        c.reflection.calibration_weight = 0.0
    });
    add("losses", "without L_sem".into(), &|c| {
        c.reflection.semantic_weight = 0.0
    });
    for on in [true, false] {
        let name = |with: &str, without: &str| if on { with } else { without }.to_string();
        let advantages = name("normalised advantages", "advantages as they are");
        add("options", advantages, &|c| {
            c.reflection.normalise_advantages = on
        });
        let noise = name(
            "one noise for all images of a user",
            "noise of its own for each image",
        );
        add("options", noise, &|c| c.reflection.common_noise = on);
        let sigma = name("learned σ", "σ as configured");
        add("options", sigma, &|c| c.reflection.learn_sigma = on);
        let token = name("retrieval as a token", "retrieval no token");
        add("options", token, &|c| c.preference.retrieval_token = on);
        let share = name(
            "a share of the way to what retrieval found",
            "no share of the way to what retrieval found",
        );
        add("options", share, &|c| c.preference.retrieval_shift = on);
    }
    for (name, baseline) in [
        ("no baseline", Baseline::None),
        ("the batch's mean as baseline", Baseline::BatchMean),
        ("leave-one-out", Baseline::LeaveOneOut),
    ] {
        add("options", name.into(), &|c| {
            c.reflection.baseline = baseline
        });
    }
    for (name, form) in [
        ("margin reward", RewardForm::Margin),
        ("hinge reward", RewardForm::Hinge),
        ("rank reward", RewardForm::Rank),
    ] {
        add("options", name.into(), &|c| c.reflection.reward = form);
    }
    for (name, exploration) in [
        ("noise in every direction", Exploration::Independent),
        ("one noise for all tokens", Exploration::SharedByTokens),
        ("noise along what retrieval found", Exploration::Retrieved),
    ] {
        add("options", name.into(), &|c| {
            c.reflection.exploration = exploration;
        });
    }
    for weight in [0.0, 0.05, 0.5] {
        let name = match weight {
            0.0 => "likeness to the caption no part of the reward".into(),
            _ => format!("likeness to the caption in the reward, {weight}"),
        };
        add("options", name, &|c| c.reflection.semantic_reward = weight);
    }
    add(
        "options",
        "the reward's own gradient, last call".into(),
        &|c| {
            c.reflection.gradient = RewardGradient::Direct;
            c.reflection.direct_calls = 1;
        },
    );
    for decay in [0.0, 0.9] {
        let name = match decay {
            0.0 => "the weights as they are".into(),
            _ => format!("moving average of the weights, {decay}"),
        };
        add("options", name, &|c| c.training.average_decay = decay);
    }
    for strength in [0.5, 0.8, 1.0] {
        let name = match strength {
            1.0 => "drawing begins at pure noise".into(),
            _ => format!("drawing begins with the reference, strength {strength}"),
        };
        add("options", name, &|c| {
            c.inference.strength = strength;
            c.reflection.strength = strength;
        });
    }
    all
}

/// A variant's name as a folder's.
pub(super) fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => slug.push(c.to_ascii_lowercase()),
            'σ' => slug += "sigma",
            _ if !slug.ends_with('-') && !slug.is_empty() => slug.push('-'),
            _ => {}
        }
    }
    slug.trim_end_matches('-').to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn variants_differ_from_the_method_and_from_each_other_by_folder() {
        let config = RunConfig::default();
        let all = variants(&config);
        let slugs: BTreeSet<String> = all.iter().map(|variant| slug(&variant.name)).collect();
        assert_eq!(slugs.len(), all.len(), "a folder each");
        assert!(all.iter().all(|variant| variant.config != config));
        assert!(all.iter().all(|variant| variant.config.validate().is_ok()));
        assert!(
            all.iter().all(|variant| variant.name != "k = 5"),
            "that is the default"
        );
        assert!(slugs.contains("without-l-cal") && slugs.contains("learned-sigma"));
        let called = |word: &str| all.iter().filter(|own| own.is_called(word)).count();
        assert_eq!((called("losses"), called("learned-sigma")), (3, 1));
    }

    #[test]
    fn what_is_on_has_a_line_without_it() {
        let mut config = RunConfig::default();
        config.reflection.exploration = Exploration::Retrieved;
        config.reflection.semantic_reward = 0.05;
        config.training.average_decay = 0.9;
        config.inference.strength = 0.5;
        config.reflection.strength = 0.5;
        config.keywords.prompt = PromptKeywords::Retrieved;
        config.preference.retrieval_shift = true;
        config.reflection.learn_sigma = true;
        let all = variants(&config);
        let without = |same: fn(&RunConfig) -> bool| all.iter().any(|v| same(&v.config));
        assert!(without(
            |c| c.reflection.exploration == Exploration::Independent
        ));
        assert!(without(|c| c.reflection.semantic_reward == 0.0));
        assert!(without(|c| !c.preference.retrieval_shift));
        assert!(without(|c| !c.reflection.learn_sigma));
        assert!(without(|c| c.keywords.prompt == PromptKeywords::History));
        assert!(without(|c| c.training.average_decay == 0.0));
        assert!(without(
            |c| c.inference.strength == 1.0 && c.reflection.strength == 1.0
        ));
        assert!(without(|c| c.reflection.gradient == RewardGradient::Direct));
    }
}
