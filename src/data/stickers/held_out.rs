//! Which (glyph, style) pairs nobody may see in training.

use std::collections::{BTreeMap, HashSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Style;

/// What the choice needs to know of an item.
#[derive(Debug, Clone)]
pub struct Pair<'a> {
    pub glyph: &'a str,
    pub group: &'a str,
    pub style: Style,
}

/// Styles of a glyph that must stay visible: its shape is learnt from them.
const VISIBLE_STYLES: usize = 2;

/// Marks `rate` of all pairs, spread evenly over (group, style), at most one a glyph.
///
/// A glyph with fewer than three styles is never touched, so two stay visible.
pub fn choose(pairs: &[Pair<'_>], rate: f64, rng_seed: u64) -> Vec<bool> {
    let mut rng = ChaCha8Rng::seed_from_u64(rng_seed);
    rng.set_stream(super::HELD_OUT_STREAM);
    let mut num_styles: BTreeMap<&str, usize> = BTreeMap::new();
    let mut themes: BTreeMap<(&str, Style), Vec<usize>> = BTreeMap::new();
    for (index, pair) in pairs.iter().enumerate() {
        *num_styles.entry(pair.glyph).or_default() += 1;
        themes
            .entry((pair.group, pair.style))
            .or_default()
            .push(index);
    }
    let mut marked = vec![false; pairs.len()];
    let mut touched: HashSet<&str> = HashSet::new();
    let (mut seen, mut taken) = (0usize, 0usize);
    for members in themes.values_mut() {
        members.shuffle(&mut rng);
        seen += members.len();
        // Rounding is carried from theme to theme, so that the total is right too.
        let due = (seen as f64 * rate).round() as usize;
        for &index in members.iter() {
            let glyph = pairs[index].glyph;
            if taken < due && num_styles[glyph] > VISIBLE_STYLES && touched.insert(glyph) {
                marked[index] = true;
                taken += 1;
            }
        }
    }
    marked
}
