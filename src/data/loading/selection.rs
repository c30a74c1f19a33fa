//! Which users, items and interactions stay, and the histories made of them.

use std::collections::HashSet;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::error::LoadError;
use super::gathering::{FoundHistory, FoundInteraction, Gathering, Picture};

/// How a user's interactions become histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryChoice {
    /// One a user: the newest item is the reference, those before it the history.
    #[default]
    Last,
    /// One for each full stretch of a user's time line, end to end; the item that follows it is the reference.
    Stretches,
}

/// What to do with an item that has no picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutPicture {
    /// Leave it out, its interactions too.
    #[default]
    Drop,
    /// Give it a white square, for models that read texts alone.
    Blank,
}

/// What every loader can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionOptions {
    /// Items of a history, the reference not counted.
    pub history_length: usize,
    pub histories: HistoryChoice,
    /// Users with fewer interactions leave; 0 and 1 keep all.
    pub min_user: usize,
    /// Items with fewer interactions leave; 0 keeps those that nobody met.
    pub min_item: usize,
    /// How many users with a history stay, drawn by the seed; 0 keeps all.
    pub max_users: usize,
    pub without_picture: WithoutPicture,
    pub seed: u64,
}

impl Default for SelectionOptions {
    fn default() -> Self {
        Self {
            history_length: 20,
            histories: HistoryChoice::Last,
            min_user: 0,
            min_item: 0,
            max_users: 0,
            without_picture: WithoutPicture::Drop,
            seed: 20_250_501,
        }
    }
}

impl SelectionOptions {
    /// # Errors
    /// A history of no items.
    pub fn validate(&self) -> Result<(), LoadError> {
        if self.history_length == 0 {
            return Err(LoadError::Option {
                option: "--history",
                found: "0".into(),
                expected: "at least 1 item".into(),
            });
        }
        Ok(())
    }
}

/// What was left out, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub items_without_picture: usize,
    pub interactions_of_those_items: usize,
    /// The same user and item once more: the first time counts.
    pub repeated_interactions: usize,
    /// By `min_user`, `min_item` and `max_users`.
    pub users_by_selection: usize,
    pub items_by_selection: usize,
    /// They stay in `interactions.csv`.
    pub users_without_history: usize,
}

/// What stays. Numbers are positions in the gathering's lists.
#[derive(Debug)]
pub struct Selected {
    /// Kept items, in the source's order.
    pub items: Vec<u32>,
    /// By user, then time; equal times keep the source's order.
    pub interactions: Vec<FoundInteraction>,
    pub num_users: usize,
    pub histories: Vec<FoundHistory>,
    pub left_out: LeftOut,
}

/// Applies the options to what was found.
///
/// # Errors
/// When no item, interaction or history is left, with what would leave some.
pub fn select(found: &Gathering, options: &SelectionOptions) -> Result<Selected, LoadError> {
    options.validate()?;
    let mut left_out = LeftOut::default();
    let mut kept: Vec<bool> = found
        .items
        .iter()
        .map(|item| {
            item.picture != Picture::None || options.without_picture == WithoutPicture::Blank
        })
        .collect();
    left_out.items_without_picture = kept.iter().filter(|kept| !**kept).count();
    if !kept.contains(&true) {
        return Err(nothing(if found.items.is_empty() {
            "the source holds no items"
        } else {
            "no item has a picture; say where they are, or --without-picture blank to do without"
        }));
    }
    let mut interactions = found.interactions.clone();
    interactions.retain(|one| kept[one.item as usize]);
    left_out.interactions_of_those_items = found.interactions.len() - interactions.len();
    // Stable: equal times keep the source's order.
    interactions.sort_by_key(|one| (one.user, one.timestamp));
    let before = interactions.len();
    keep_first_meetings(&mut interactions);
    left_out.repeated_interactions = before - interactions.len();
    if interactions.is_empty() {
        return Err(nothing("no interaction is left"));
    }
    let users_before = num_users(&interactions);
    let items_before = kept.iter().filter(|kept| **kept).count();
    keep_core(&mut interactions, &mut kept, options);
    if options.max_users > 0 && found.histories.is_none() {
        draw_users(&mut interactions, options);
        // The others' items may have nobody left.
        keep_core(&mut interactions, &mut kept, options);
    }
    if interactions.is_empty() {
        return Err(nothing(
            "no user and item have as many interactions as --min-user and --min-item ask for",
        ));
    }
    let num_users = num_users(&interactions);
    left_out.users_by_selection = users_before - num_users;
    left_out.items_by_selection = items_before - kept.iter().filter(|kept| **kept).count();
    let histories = match &found.histories {
        Some(histories) => histories.clone(),
        None => histories(found, &interactions, options, &mut left_out),
    };
    if histories.is_empty() {
        let longest = by_user(&interactions).map(<[_]>::len).max().unwrap_or(0);
        return Err(nothing(&format!(
            "a history of {} items and a reference take {} interactions, and no user has more than {longest}; \
             choose a smaller --history",
            options.history_length,
            options.history_length + 1
        )));
    }
    let items = (0..found.items.len() as u32).filter(|&item| kept[item as usize]);
    Ok(Selected {
        items: items.collect(),
        interactions,
        num_users,
        histories,
        left_out,
    })
}

fn nothing(reason: &str) -> LoadError {
    LoadError::Nothing {
        reason: reason.to_string(),
    }
}

/// Stretches of one user each; the interactions are sorted by user.
fn by_user(interactions: &[FoundInteraction]) -> impl Iterator<Item = &[FoundInteraction]> {
    interactions.chunk_by(|one, other| one.user == other.user)
}

fn num_users(interactions: &[FoundInteraction]) -> usize {
    by_user(interactions).count()
}

fn keep_first_meetings(interactions: &mut Vec<FoundInteraction>) {
    let mut user = None;
    let mut seen: HashSet<u32> = HashSet::new();
    interactions.retain(|one| {
        if user != Some(one.user) {
            user = Some(one.user);
            seen.clear();
        }
        seen.insert(one.item)
    });
}

/// Users and items leave until each one left has enough of the others.
fn keep_core(
    interactions: &mut Vec<FoundInteraction>,
    kept: &mut [bool],
    options: &SelectionOptions,
) {
    if options.min_user <= 1 && options.min_item == 0 {
        return;
    }
    let most_users = interactions.iter().map(|one| one.user as usize + 1).max();
    loop {
        let mut per_user = vec![0usize; most_users.unwrap_or(0)];
        let mut per_item = vec![0usize; kept.len()];
        for one in interactions.iter() {
            per_user[one.user as usize] += 1;
            per_item[one.item as usize] += 1;
        }
        for (kept, count) in kept.iter_mut().zip(&per_item) {
            *kept &= *count >= options.min_item;
        }
        let before = interactions.len();
        interactions.retain(|one| {
            kept[one.item as usize] && per_user[one.user as usize] >= options.min_user
        });
        if interactions.len() == before {
            return;
        }
    }
}

/// Keeps `max_users` of the users who have a history.
fn draw_users(interactions: &mut Vec<FoundInteraction>, options: &SelectionOptions) {
    let mut users: Vec<u32> = by_user(interactions)
        .filter(|own| own.len() > options.history_length)
        .map(|own| own[0].user)
        .collect();
    users.shuffle(&mut ChaCha8Rng::seed_from_u64(options.seed));
    users.truncate(options.max_users);
    let users: HashSet<u32> = users.into_iter().collect();
    interactions.retain(|one| users.contains(&one.user));
}

fn histories(
    found: &Gathering,
    interactions: &[FoundInteraction],
    options: &SelectionOptions,
    left_out: &mut LeftOut,
) -> Vec<FoundHistory> {
    let length = options.history_length;
    let mut histories = Vec::new();
    for own in by_user(interactions) {
        if own.len() <= length {
            left_out.users_without_history += 1;
            continue;
        }
        let mut add = |start: usize| {
            histories.push(FoundHistory {
                user: found.users[own[0].user as usize].clone(),
                history: own[start..start + length]
                    .iter()
                    .map(|one| one.item)
                    .collect(),
                reference: own[start + length].item,
                split: None,
            });
        };
        match options.histories {
            HistoryChoice::Last => add(own.len() - 1 - length),
            HistoryChoice::Stretches => (0..own.len() - length).step_by(length).for_each(add),
        }
    }
    histories
}
