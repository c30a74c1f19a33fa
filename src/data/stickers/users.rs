//! Invented users whose right answer is known: two themes, a reference in a third style, the target in the theme's.

use std::collections::BTreeMap;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::error::StickerError;
use super::{Sticker, Style};
use crate::data::history::{History, Split};

/// How users are invented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserOptions {
    pub num_train: usize,
    pub num_validation: usize,
    pub num_test: usize,
    /// Items in a history.
    pub history_length: usize,
    /// Chance that a history item is a stray from outside both themes.
    pub noise_rate: f64,
}

impl Default for UserOptions {
    fn default() -> Self {
        Self {
            num_train: 1500,
            num_validation: 200,
            num_test: 300,
            history_length: 20,
            noise_rate: 0.1,
        }
    }
}

/// A theme is a sticker pack: one group in one style.
type Theme<'a> = (Style, &'a str);

/// One held-out pair in this many is a validation target, the others are test targets: tuning never sees a test target.
const VALIDATION_SHARE: usize = 3;

/// Attempts before a user is given up; each fails only where a drawn theme leaves no reference.
const ATTEMPTS: usize = 1000;

/// Invents all users, train first. Every history, reference and training target is a training pair;
/// every validation and test target is held out, and the two sets of targets are disjoint.
///
/// # Errors
/// [`StickerError::TooFew`] when the stickers cannot fill a history or offer no target.
pub fn invent(
    stickers: &[Sticker],
    options: &UserOptions,
    rng_seed: u64,
) -> Result<Vec<History>, StickerError> {
    let world = World::new(stickers, options, rng_seed)?;
    let splits = [
        (Split::Train, options.num_train),
        (Split::Validation, options.num_validation),
        (Split::Test, options.num_test),
    ];
    let mut users = Vec::new();
    for (split, count) in splits {
        for rank in 0..count {
            users.push(world.user(users.len(), rank, split)?);
        }
    }
    Ok(users)
}

/// What all users draw from.
struct World<'a> {
    stickers: &'a [Sticker],
    options: &'a UserOptions,
    rng_seed: u64,
    /// Training items of each theme that is large enough for half a history.
    themes: BTreeMap<Theme<'a>, Vec<usize>>,
    /// All training items.
    training: Vec<usize>,
    /// Training items by glyph.
    by_glyph: BTreeMap<&'a str, Vec<usize>>,
    /// Held-out items, in random order.
    validation_targets: Vec<usize>,
    test_targets: Vec<usize>,
}

impl<'a> World<'a> {
    fn new(
        stickers: &'a [Sticker],
        options: &'a UserOptions,
        rng_seed: u64,
    ) -> Result<Self, StickerError> {
        let mut themes: BTreeMap<Theme<'a>, Vec<usize>> = BTreeMap::new();
        let mut by_glyph: BTreeMap<&'a str, Vec<usize>> = BTreeMap::new();
        let mut training = Vec::new();
        let mut held_out = Vec::new();
        for (index, sticker) in stickers.iter().enumerate() {
            if sticker.held_out {
                held_out.push(index);
                continue;
            }
            training.push(index);
            themes
                .entry((sticker.style, &sticker.group))
                .or_default()
                .push(index);
            by_glyph.entry(&sticker.glyph).or_default().push(index);
        }
        // The reference's glyph is left out of the history.
        let needed = options.history_length.div_ceil(2) + 1;
        themes.retain(|_, members| members.len() >= needed);
        if themes.len() < 2 {
            return Err(StickerError::TooFew {
                what: format!("themes of at least {needed} training stickers"),
                found: themes.len(),
                needed: 2,
            });
        }
        held_out.retain(|&item| {
            themes.contains_key(&(stickers[item].style, stickers[item].group.as_str()))
        });
        let mut rng = ChaCha8Rng::seed_from_u64(rng_seed);
        rng.set_stream(super::TARGET_STREAM);
        held_out.shuffle(&mut rng);
        let (mut validation_targets, mut test_targets) = (Vec::new(), Vec::new());
        for (order, item) in held_out.into_iter().enumerate() {
            if order % VALIDATION_SHARE == 0 {
                validation_targets.push(item);
            } else {
                test_targets.push(item);
            }
        }
        let world = Self {
            stickers,
            options,
            rng_seed,
            themes,
            training,
            by_glyph,
            validation_targets,
            test_targets,
        };
        for (what, wanted, targets) in [
            (
                "validation",
                options.num_validation,
                &world.validation_targets,
            ),
            ("test", options.num_test, &world.test_targets),
        ] {
            if wanted > 0 && targets.is_empty() {
                return Err(StickerError::TooFew {
                    what: format!("held-out stickers as {what} targets"),
                    found: 0,
                    needed: 1,
                });
            }
        }
        Ok(world)
    }

    /// User `number` overall, the `rank`-th of its split. Each has a random stream of its own.
    fn user(&self, number: usize, rank: usize, split: Split) -> Result<History, StickerError> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.rng_seed);
        rng.set_stream(super::FIRST_USER_STREAM + number as u64);
        for _ in 0..ATTEMPTS {
            // Held-out targets are dealt in turn, so that each is asked for equally often.
            let target = match split {
                Split::Train => *pick(&self.training, &mut rng, "training stickers")?,
                Split::Validation => self.validation_targets[rank % self.validation_targets.len()],
                Split::Test => self.test_targets[rank % self.test_targets.len()],
            };
            if let Some((history, reference)) = self.life(target, &mut rng) {
                return Ok(History {
                    user: format!("u{:04}", number + 1),
                    history,
                    reference,
                    target: Some(target),
                    split: Some(split),
                });
            }
        }
        Err(StickerError::TooFew {
            what: format!("pairs of themes for user {}", number + 1),
            found: 0,
            needed: 1,
        })
    }

    /// A history and a reference for which `target` is the right answer, if this draw allows one.
    fn life(&self, target: usize, rng: &mut ChaCha8Rng) -> Option<(Vec<usize>, usize)> {
        let wanted = &self.stickers[target];
        let first: Theme<'_> = (wanted.style, &wanted.group);
        let first_members = self.themes.get(&first)?;
        let others: Vec<_> = self
            .themes
            .iter()
            .filter(|((style, group), _)| *style != first.0 && *group != first.1)
            .collect();
        let (&second, second_members) = *others.choose(rng)?;
        let references: Vec<usize> = self
            .by_glyph
            .get(wanted.glyph.as_str())?
            .iter()
            .copied()
            .filter(|&item| ![first.0, second.0].contains(&self.stickers[item].style))
            .collect();
        let reference = *references.choose(rng)?;

        let length = self.options.history_length;
        let strays = (0..length)
            .filter(|_| rng.random_bool(self.options.noise_rate))
            .count();
        let themed = length - strays;
        // The odd one goes to either theme.
        let from_first = (themed + usize::from(rng.random_bool(0.5))) / 2;
        let outside: Vec<usize> = self
            .training
            .iter()
            .copied()
            .filter(|&item| {
                let sticker = &self.stickers[item];
                let theme = (sticker.style, sticker.group.as_str());
                theme != first && theme != second
            })
            .collect();
        let mut history = Vec::with_capacity(length);
        for (members, count) in [
            (first_members, from_first),
            (second_members, themed - from_first),
            (&outside, strays),
        ] {
            let fitting: Vec<usize> = members
                .iter()
                .copied()
                .filter(|&item| self.stickers[item].glyph != wanted.glyph)
                .collect();
            if fitting.len() < count {
                return None;
            }
            history.extend(fitting.choose_multiple(rng, count));
        }
        history.shuffle(rng);
        Some((history, reference))
    }
}

fn pick<'a, T>(
    from: &'a [T],
    rng: &mut ChaCha8Rng,
    what: &'static str,
) -> Result<&'a T, StickerError> {
    from.choose(rng).ok_or_else(|| StickerError::TooFew {
        what: what.to_string(),
        found: 0,
        needed: 1,
    })
}
