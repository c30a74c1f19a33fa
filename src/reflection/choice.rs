//! The reward at inference (ours): of several drawings of a sample, each from its own latent, the best rewarded is kept.
//!
//! What training asks of images (equations 13 and 14) is asked of the finished ones. Reference and keyword image are the same for
//! all candidates of a sample, and every form of the reward rises with the score: score and likeness decide alone.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::discriminator::{Case, Discriminator, VisualEncoder};
use crate::generation::choice::Chooser;
use crate::generation::sample::{Sample, rows};
use crate::recommender::neighbours::host;

/// Keeps the candidate with the largest reward, the first in a tie.
pub struct RewardChooser<'a, B: Backend> {
    /// Images to features.
    pub visual: &'a dyn VisualEncoder<B>,
    /// Features to scores.
    pub discriminator: &'a dyn Discriminator<B>,
    /// What a cosine of one with the reference's caption counts beside the score, as `reflection.semantic_reward`.
    pub likeness: f32,
}

impl<B: Backend> Chooser<B> for RewardChooser<'_, B> {
    fn choose(&self, samples: &[&Sample], candidates: usize, images: Tensor<B, 4>) -> Vec<usize> {
        let repeated: Vec<&Sample> = samples
            .iter()
            .flat_map(|sample| std::iter::repeat_n(*sample, candidates))
            .collect();
        let features = self.visual.encode(images);
        let captions = rows(&repeated, |s| &s.reference_semantic, &features.device());
        let likeness = host((features.clone() * captions).sum_dim(1));
        let cases: Vec<Case> = repeated
            .iter()
            .map(|sample| Case {
                user: sample.user_index,
                reference: sample.reference,
            })
            .collect();
        let judged = self.discriminator.judge_all(&cases, features);
        let rewards: Vec<f32> = judged
            .iter()
            .zip(likeness)
            .map(|(judgement, likeness)| judgement.score + self.likeness * likeness)
            .collect();
        rewards.chunks(candidates).map(best).collect()
    }
}

/// The place of the largest number, the first in a tie; what is no number loses to all that are.
fn best(rewards: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (place, &reward) in rewards.iter().enumerate() {
        if reward > best.1 {
            best = (place, reward);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn a_tie_goes_to_the_first_and_broken_rewards_lose() {
        assert_eq!(best(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(best(&[f32::NAN, -2.0, f32::NAN]), 1);
        assert_eq!(best(&[f32::NAN, f32::NAN]), 0);
    }
}
