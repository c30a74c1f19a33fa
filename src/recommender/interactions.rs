//! Who interacted with what, and the split that training and evaluation use.

use super::config::RecommenderError;

/// The items of every user, oldest first, without repetitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interactions {
    num_items: usize,
    by_user: Vec<Vec<u32>>,
}

/// Interactions divided by time within each user.
#[derive(Debug, Clone)]
pub struct InteractionSplit {
    /// What the model is trained on.
    pub train: Interactions,
    /// What early stopping looks at.
    pub validation: Interactions,
    /// What is reported.
    pub test: Interactions,
}

impl Interactions {
    /// Takes the items of each user in order of time; of a repeated item the first visit counts.
    ///
    /// # Errors
    /// When an item lies outside the catalogue.
    pub fn new(num_items: usize, by_user: Vec<Vec<usize>>) -> Result<Self, RecommenderError> {
        let mut rows = Vec::with_capacity(by_user.len());
        for (user, items) in by_user.into_iter().enumerate() {
            let mut seen = std::collections::HashSet::with_capacity(items.len());
            let mut row = Vec::with_capacity(items.len());
            for item in items {
                if item >= num_items {
                    return Err(RecommenderError::UnknownItem {
                        user,
                        item,
                        num_items,
                    });
                }
                if seen.insert(item) {
                    row.push(item as u32);
                }
            }
            rows.push(row);
        }
        Ok(Self {
            num_items,
            by_user: rows,
        })
    }

    /// Number of users, those without items included.
    pub fn num_users(&self) -> usize {
        self.by_user.len()
    }

    /// Size of the catalogue.
    pub fn num_items(&self) -> usize {
        self.num_items
    }

    /// Number of interactions.
    pub fn len(&self) -> usize {
        self.by_user.iter().map(Vec::len).sum()
    }

    /// Whether nobody interacted with anything.
    pub fn is_empty(&self) -> bool {
        self.by_user.iter().all(Vec::is_empty)
    }

    /// One user's items, oldest first.
    pub fn of(&self, user: usize) -> &[u32] {
        &self.by_user[user]
    }

    /// Every user's items, oldest first.
    pub fn by_user(&self) -> &[Vec<u32>] {
        &self.by_user
    }

    /// How many users interacted with each item.
    pub fn popularity(&self) -> Vec<u32> {
        let mut counts = vec![0; self.num_items];
        for &item in self.by_user.iter().flatten() {
            counts[item as usize] += 1;
        }
        counts
    }

    /// Every user's items as sorted lists, for masks.
    pub fn sorted(&self) -> Vec<Vec<u32>> {
        let mut rows = self.by_user.clone();
        rows.iter_mut().for_each(|row| row.sort_unstable());
        rows
    }

    /// These interactions apart: those with items that occur in `train`, and those with items that do not.
    pub fn warm_and_cold(&self, train: &Self) -> (Self, Self) {
        let popularity = train.popularity();
        let part = |warm: bool| Self {
            num_items: self.num_items,
            by_user: self
                .by_user
                .iter()
                .map(|row| {
                    row.iter()
                        .copied()
                        .filter(|&item| (popularity[item as usize] > 0) == warm)
                        .collect()
                })
                .collect(),
        };
        (part(true), part(false))
    }

    /// Gives each user's last `test` items to the test part and the `validation` items before them to
    /// the validation part. A user always keeps an item to train on: short histories give less.
    pub fn leave_last(&self, validation: usize, test: usize) -> InteractionSplit {
        self.leave_last_by(|_| (validation, test))
    }

    /// The same with numbers of validation and test items that depend on how many a user has.
    pub fn leave_last_by(&self, counts: impl Fn(usize) -> (usize, usize)) -> InteractionSplit {
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        for items in &self.by_user {
            let (validation, test) = counts(items.len());
            let spare = items.len().saturating_sub(1);
            let num_test = test.min(spare);
            let num_validation = validation.min(spare - num_test);
            let (rest, test_items) = items.split_at(items.len() - num_test);
            let (train_items, validation_items) = rest.split_at(rest.len() - num_validation);
            for (part, items) in parts
                .iter_mut()
                .zip([train_items, validation_items, test_items])
            {
                part.push(items.to_vec());
            }
        }
        let [train, validation, test] = parts.map(|by_user| Self {
            num_items: self.num_items,
            by_user,
        });
        InteractionSplit {
            train,
            validation,
            test,
        }
    }
}
