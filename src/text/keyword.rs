//! Keyword lists: reading one out of generated text, pooling those of a history (method, equation 6).

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Longest keyword, in words: more is a sentence, not a keyword.
const MOST_WORDS: usize = 5;

/// How the keywords of a history become a user's. The paper keeps frequent keywords; the numbers are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// Keywords of fewer items than this are dropped.
    pub min_count: usize,
    /// At most so many are kept, `m`.
    pub num_kept: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            min_count: 2,
            num_kept: 8,
        }
    }
}

/// Reads the keywords out of a generated answer: separated by commas, semicolons or lines, with or
/// without bullets, numbers, quotes and full stops; lower case, without repetitions, in the answer's order.
pub fn parse(answer: &str) -> Vec<String> {
    let mut keywords: Vec<String> = Vec::new();
    for piece in answer.split([',', ';', '\n']) {
        let keyword = clean(piece);
        let num_words = keyword.split(' ').count();
        if !keyword.is_empty() && num_words <= MOST_WORDS && !keywords.contains(&keyword) {
            keywords.push(keyword);
        }
    }
    keywords
}

fn clean(piece: &str) -> String {
    let piece = piece.trim();
    // "1. pear", "2) pear", but not "3d food".
    let after_digits = piece.trim_start_matches(|c: char| c.is_ascii_digit());
    let piece = match after_digits.strip_prefix(['.', ')']) {
        Some(rest) if after_digits.len() < piece.len() => rest,
        _ => piece,
    };
    let marks = [
        '-', '*', '•', '"', '\'', '`', '.', '(', ')', '[', ']', ' ', '\t', '\r',
    ];
    let piece = piece.trim_matches(marks).to_lowercase();
    let piece = piece.strip_prefix("keywords:").unwrap_or(&piece);
    let piece = piece.strip_prefix("and ").unwrap_or(piece);
    piece.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The keywords of a user: those of at least `min_count` items, the most frequent first; among equally
/// frequent ones the more recently seen first, and within one item the order of its list.
///
/// `lists` holds one list per item, the oldest item first; a keyword counts once per item.
pub fn pool(lists: &[Vec<String>], config: &PoolConfig) -> Vec<String> {
    struct Seen {
        count: usize,
        item: usize,
        place: usize,
    }
    let mut seen: HashMap<&str, Seen> = HashMap::new();
    for (item, list) in lists.iter().enumerate() {
        for (place, keyword) in list.iter().enumerate() {
            let entry = seen.entry(keyword).or_insert(Seen {
                count: 0,
                item: usize::MAX,
                place,
            });
            if entry.item != item {
                *entry = Seen {
                    count: entry.count + 1,
                    item,
                    place,
                };
            }
        }
    }
    let mut kept: Vec<(&str, Seen)> = seen
        .into_iter()
        .filter(|(_, seen)| seen.count >= config.min_count)
        .collect();
    kept.sort_by(|(_, a), (_, b)| {
        (b.count, b.item)
            .cmp(&(a.count, a.item))
            .then(a.place.cmp(&b.place))
    });
    kept.truncate(config.num_kept);
    kept.into_iter()
        .map(|(keyword, _)| keyword.to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(lists: &[&str]) -> Vec<Vec<String>> {
        lists.iter().map(|list| parse(list)).collect()
    }

    #[test]
    fn answers_are_read_in_many_forms() {
        for answer in [
            " 3d food, hamburger, beef",
            "1. 3D food\n2. Hamburger\n3. beef",
            "- 3d  food\n- \"hamburger\"\n- beef.",
            "Keywords: 3d food; hamburger, and beef, hamburger",
        ] {
            assert_eq!(
                parse(answer),
                ["3d food", "hamburger", "beef"],
                "{answer:?}"
            );
        }
        assert_eq!(parse(" ,, \n"), Vec::<String>::new());
        assert_eq!(
            parse("pear, this picture shows a pear on a table"),
            ["pear"],
            "a sentence is no keyword"
        );
    }

    #[test]
    fn pooling_by_hand() {
        let history = lists(&[
            "flat animal, cat, pet",
            "3d food, pear, fruit",
            "flat animal, dog, pet",
            "3d food, apple, fruit",
            "retro face, cat",
            "3d food, bread",
        ]);
        // 3d food 3 (item 5); flat animal 2 (item 2), pet 2 (item 2), fruit 2 (item 3), cat 2 (item 4).
        let all = PoolConfig {
            min_count: 2,
            num_kept: 8,
        };
        assert_eq!(
            pool(&history, &all),
            ["3d food", "cat", "fruit", "flat animal", "pet"]
        );
        let two = PoolConfig {
            min_count: 2,
            num_kept: 2,
        };
        assert_eq!(pool(&history, &two), ["3d food", "cat"]);
        let three = PoolConfig {
            min_count: 3,
            num_kept: 8,
        };
        assert_eq!(pool(&history, &three), ["3d food"]);
        assert_eq!(pool(&[], &all), Vec::<String>::new());
    }

    #[test]
    fn a_keyword_counts_once_per_item() {
        let twice = vec![vec!["cat".to_string(), "cat".to_string()]];
        assert!(pool(&twice, &PoolConfig::default()).is_empty());
    }
}
