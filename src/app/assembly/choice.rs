//! Who chooses among drawings.

use super::Ranking;
use crate::app::backend::Backend;
use crate::app::config::InferenceConfig;
use crate::generation::choice::Choice;
use crate::reflection::choice::RewardChooser;
use crate::reflection::discriminator::ClipVisualEncoder;

/// The reward as a chooser, over a ranking model and CLIP.
pub fn chooser<'a>(
    inference: &InferenceConfig,
    visual: &'a ClipVisualEncoder<'a, Backend>,
    ranking: &'a Ranking,
) -> RewardChooser<'a, Backend> {
    RewardChooser {
        visual,
        discriminator: &ranking.discriminator,
        likeness: inference.likeness,
    }
}

/// The choice that `inference` asks for; none where one drawing is made of each sample.
pub fn choice<'a>(
    inference: &InferenceConfig,
    chooser: &'a RewardChooser<'a, Backend>,
) -> Option<Choice<'a, Backend>> {
    (inference.candidates > 1).then_some(Choice {
        candidates: inference.candidates,
        chooser,
    })
}
