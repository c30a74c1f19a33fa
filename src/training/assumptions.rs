//! The two assumptions behind retrieval, put to the test (paper Sec. 2, Fig. 2).
//!
//! **Paper:** the ranking model is trained on three histories: the `k` items that retrieval finds for the
//! reference (`ret`), the `k` after them (`exp-ret`), and `k` drawn at random. If items related to the reference
//! say more about it, Recall and NDCG fall in this order. **Our reading:** the reference is the user's last
//! item, and it is what must be ranked high, among all items but the user's earlier ones, whichever of them
//! were trained on. **Ours:** a control, the items retrieved for another user's reference. It has the same
//! coherence as `ret` without looking at the answer, which retrieval by the reference does.

use rand::seq::SliceRandom as _;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::recommender::{Interactions, RecommenderError};
use crate::retrieval::retrieve;

/// What a user's training history is cut down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// The `k` items closest to the reference.
    Ret,
    /// The `k` items after them.
    ExpRet,
    /// `k` items drawn at random.
    Random,
    /// The `k` items closest to another user's reference.
    RetOther,
}

impl Selection {
    /// The paper's three, then the control.
    pub const ALL: [Self; 4] = [Self::Ret, Self::ExpRet, Self::Random, Self::RetOther];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ret => "ret",
            Self::ExpRet => "exp-ret",
            Self::Random => "random",
            Self::RetOther => "ret for another",
        }
    }
}

/// Users whose history is long enough to choose from, and what they are asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Each user's items but the last, oldest first.
    pub histories: Interactions,
    /// The last item of each user: the reference, and the right answer.
    pub references: Interactions,
}

impl Question {
    /// Asks every user with more than `2k` items; the others are left without any.
    ///
    /// # Errors
    /// When nobody has so many.
    pub fn new(interactions: &Interactions, k: usize) -> Result<Self, RecommenderError> {
        let mut histories = Vec::new();
        let mut references = Vec::new();
        for items in interactions.by_user() {
            let items: Vec<usize> = items.iter().map(|&item| item as usize).collect();
            match items.split_last() {
                Some((&last, before)) if before.len() >= 2 * k => {
                    histories.push(before.to_vec());
                    references.push(vec![last]);
                }
                _ => {
                    histories.push(Vec::new());
                    references.push(Vec::new());
                }
            }
        }
        if histories.iter().all(Vec::is_empty) {
            return Err(RecommenderError::NoInteractions);
        }
        let num_items = interactions.num_items();
        Ok(Self {
            histories: Interactions::new(num_items, histories)?,
            references: Interactions::new(num_items, references)?,
        })
    }

    /// The training history of every user: `k` of their items, chosen by what `semantic` says of each item.
    ///
    /// # Errors
    /// Never, as the items come from the catalogue; the signature is that of [`Interactions::new`].
    pub fn select(
        &self,
        selection: Selection,
        semantic: &[Vec<f32>],
        k: usize,
        seed: u64,
    ) -> Result<Interactions, RecommenderError> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let asked: Vec<usize> = (0..self.histories.num_users())
            .filter(|&user| !self.references.of(user).is_empty())
            .collect();
        let mut by_user = vec![Vec::new(); self.histories.num_users()];
        for &user in &asked {
            let items = self.histories.of(user);
            let ranked = |reference: u32, count: usize| -> Vec<usize> {
                let history: Vec<&[f32]> = items
                    .iter()
                    .map(|&item| semantic[item as usize].as_slice())
                    .collect();
                let found = retrieve(&history, &semantic[reference as usize], count);
                let places = found.positions.into_iter();
                places.map(|place| items[place] as usize).collect()
            };
            let own = self.references.of(user)[0];
            by_user[user] = match selection {
                Selection::Ret => ranked(own, k),
                Selection::ExpRet => ranked(own, 2 * k).split_off(k),
                Selection::Random => {
                    let mut drawn: Vec<usize> = items.iter().map(|&item| item as usize).collect();
                    drawn.shuffle(&mut random);
                    drawn.truncate(k);
                    drawn
                }
                Selection::RetOther => {
                    let other = asked[random.random_range(0..asked.len())];
                    ranked(self.references.of(other)[0], k)
                }
            };
        }
        Interactions::new(self.histories.num_items(), by_user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One user: items 0 to 5 on a quarter circle, the reference is item 6 beside item 0.
    fn world() -> (Interactions, Vec<Vec<f32>>) {
        let angle = |item: usize| {
            if item == 6 {
                0.0
            } else {
                item as f32 * 0.25 + 0.1
            }
        };
        let semantic = (0..7)
            .map(|item| vec![angle(item).cos(), angle(item).sin()])
            .collect();
        let by_user = vec![vec![3, 0, 5, 2, 1, 4, 6], vec![1, 2]];
        (Interactions::new(7, by_user).unwrap(), semantic)
    }

    #[test]
    fn histories_are_cut_by_their_rank() {
        let (interactions, semantic) = world();
        let question = Question::new(&interactions, 2).unwrap();
        assert_eq!(question.references.by_user(), [vec![6], vec![]]);
        let of = |selection| {
            let chosen = question.select(selection, &semantic, 2, 7).unwrap();
            assert!(chosen.of(1).is_empty(), "too short to be asked");
            chosen.of(0).to_vec()
        };
        assert_eq!(of(Selection::Ret), [0, 1]);
        assert_eq!(of(Selection::ExpRet), [2, 3]);
        assert_eq!(of(Selection::RetOther), [0, 1], "there is no other user");
        let drawn = of(Selection::Random);
        assert!(drawn.len() == 2 && drawn[0] != drawn[1] && !drawn.contains(&6));
    }

    #[test]
    fn nobody_to_ask_is_an_error() {
        let (interactions, _) = world();
        assert!(Question::new(&interactions, 4).is_err());
    }
}
