//! The metrics by name: what each one compares, and which way is better.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A number per drawn picture. Paper: Table 2 but for the last six.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// 100 · cosine with the text of the user's preference, in CLIP's space.
    #[serde(rename = "CPS")]
    PreferenceText,
    /// The mean of 100 · cosine with each picture of the history.
    #[serde(rename = "CPIS")]
    HistoryImages,
    /// 100 · the mean perceptual distance from the pictures of the history.
    #[serde(rename = "LPIPS history")]
    HistoryDistance,
    /// 100 · the mean structural similarity to the pictures of the history.
    #[serde(rename = "SSIM history")]
    HistoryStructure,
    /// 100 · cosine with the reference's text.
    #[serde(rename = "CS")]
    ReferenceText,
    /// 100 · cosine with the reference's picture.
    #[serde(rename = "CIS")]
    ReferenceImage,
    /// 100 · the perceptual distance from the reference's picture.
    #[serde(rename = "LPIPS reference")]
    ReferenceDistance,
    /// 100 · structural similarity to the reference's picture.
    #[serde(rename = "SSIM reference")]
    ReferenceStructure,
    /// `(rank of the reference − rank of the drawing) / rank of the reference`.
    #[serde(rename = "ΔR")]
    RankChange,
    /// 1 where the drawing shows the target's style.
    #[serde(rename = "style@1")]
    Style,
    /// 1 where the nearest real sticker shows the target's glyph.
    #[serde(rename = "glyph@1")]
    Glyph,
    /// 1 where one of the five nearest glyphs is the target's.
    #[serde(rename = "glyph@5")]
    GlyphInFive,
    /// 1 where both are right.
    #[serde(rename = "both@1")]
    Both,
    /// 100 · cosine with the target's picture.
    #[serde(rename = "CIS target")]
    TargetImage,
    /// 100 · the perceptual distance from the target's picture.
    #[serde(rename = "LPIPS target")]
    TargetDistance,
    /// 100 · structural similarity to the target's picture.
    #[serde(rename = "SSIM target")]
    TargetStructure,
}

/// What a metric asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Does it suit the user?
    Personalisation,
    /// Does it still show the item?
    Semantics,
    /// What does the ranking model say?
    Ranking,
    /// Is it the right answer?
    Truth,
}

impl Metric {
    /// All, in the order of tables.
    pub const ALL: [Self; 16] = [
        Self::PreferenceText,
        Self::HistoryImages,
        Self::HistoryDistance,
        Self::HistoryStructure,
        Self::ReferenceText,
        Self::ReferenceImage,
        Self::ReferenceDistance,
        Self::ReferenceStructure,
        Self::RankChange,
        Self::Style,
        Self::Glyph,
        Self::GlyphInFive,
        Self::Both,
        Self::TargetImage,
        Self::TargetDistance,
        Self::TargetStructure,
    ];

    /// Its name in tables and files.
    pub fn key(self) -> &'static str {
        match self {
            Self::PreferenceText => "CPS",
            Self::HistoryImages => "CPIS",
            Self::HistoryDistance => "LPIPS history",
            Self::HistoryStructure => "SSIM history",
            Self::ReferenceText => "CS",
            Self::ReferenceImage => "CIS",
            Self::ReferenceDistance => "LPIPS reference",
            Self::ReferenceStructure => "SSIM reference",
            Self::RankChange => "ΔR",
            Self::Style => "style@1",
            Self::Glyph => "glyph@1",
            Self::GlyphInFive => "glyph@5",
            Self::Both => "both@1",
            Self::TargetImage => "CIS target",
            Self::TargetDistance => "LPIPS target",
            Self::TargetStructure => "SSIM target",
        }
    }

    /// Is more better?
    pub fn higher_is_better(self) -> bool {
        !matches!(
            self,
            Self::HistoryDistance | Self::ReferenceDistance | Self::TargetDistance
        )
    }

    /// What it asks.
    pub fn question(self) -> Question {
        match self {
            Self::PreferenceText
            | Self::HistoryImages
            | Self::HistoryDistance
            | Self::HistoryStructure => Question::Personalisation,
            Self::ReferenceText
            | Self::ReferenceImage
            | Self::ReferenceDistance
            | Self::ReferenceStructure => Question::Semantics,
            Self::RankChange => Question::Ranking,
            Self::Style
            | Self::Glyph
            | Self::GlyphInFive
            | Self::Both
            | Self::TargetImage
            | Self::TargetDistance
            | Self::TargetStructure => Question::Truth,
        }
    }
}

/// What is known of one drawn picture; a metric that could not be computed is absent, never zero.
pub type Scores = BTreeMap<Metric, f64>;

/// One user's means over several pictures (seeds); a metric counts the pictures that have it.
pub fn mean_scores(pictures: &[Scores]) -> Scores {
    let mut sums: BTreeMap<Metric, (f64, usize)> = BTreeMap::new();
    for (metric, value) in pictures.iter().flatten() {
        let (sum, count) = sums.entry(*metric).or_default();
        *sum += value;
        *count += 1;
    }
    sums.into_iter()
        .map(|(metric, (sum, count))| (metric, sum / count as f64))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_tables_use_the_same_names() {
        for metric in Metric::ALL {
            let written = serde_json::to_value(metric).unwrap();
            assert_eq!(written, metric.key());
        }
        let mut order = Metric::ALL.to_vec();
        order.sort();
        assert_eq!(order, Metric::ALL);
    }

    #[test]
    fn a_missing_metric_is_not_zero() {
        let first = Scores::from([(Metric::Style, 1.0), (Metric::RankChange, -2.0)]);
        let second = Scores::from([(Metric::Style, 0.0)]);
        let mean = mean_scores(&[first, second]);
        assert_eq!(
            mean,
            Scores::from([(Metric::Style, 0.5), (Metric::RankChange, -2.0)])
        );
        assert!(mean_scores(&[]).is_empty());
    }
}
