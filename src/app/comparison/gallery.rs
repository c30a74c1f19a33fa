//! Rows of pictures: the users whom the main method serves best, middling and worst.

use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::results::Results;
use super::{Comparison, Kept};
use crate::app::exhibition::Visitor;
use crate::app::pictures::png;
use crate::app::report::{Drawing, DrawingKind, HistoryPicture, Picture, UserPanel};
use crate::data::stickers::caption;
use crate::evaluation::metric::Metric;

/// Longest side of a history's picture on the page, in pixels.
const SMALL: u32 = 96;
/// Longest side of the others.
const LARGE: u32 = 264;

/// Users by what the main method's pictures are worth, the best first, and by which metric: closeness to the target,
/// or to the history where no target is known. Users without a picture come last.
pub fn order(results: &Results) -> Option<(Metric, Vec<usize>)> {
    let main = results.main()?;
    let known = |metric: &Metric| main.column(*metric).iter().any(Option::is_some);
    let metric = [Metric::TargetImage, Metric::HistoryImages]
        .into_iter()
        .find(known)?;
    let values = main.column(metric);
    let mut order: Vec<usize> = (0..values.len()).collect();
    let value = |user: usize| values[user].unwrap_or(f64::NEG_INFINITY);
    order.sort_by(|a, b| value(*b).total_cmp(&value(*a)).then(a.cmp(b)));
    Some((metric, order))
}

/// The places in a list of `count` that are shown, each with its word: a third each of the best, those around the
/// middle, and the worst; all of a short list.
pub fn chosen(count: usize, shown: usize) -> Vec<(usize, &'static str)> {
    let shown = shown.min(count);
    let best = shown.div_ceil(3);
    let worst = (shown - best).div_ceil(2);
    let middle = shown - best - worst;
    let first_middle = ((count - middle) / 2).clamp(best, (count - worst - middle).max(best));
    let part = |from: usize, length: usize, word| (from..from + length).map(move |at| (at, word));
    part(0, best, "best")
        .chain(part(first_middle, middle, "median"))
        .chain(part(count - worst, worst, "worst"))
        .collect()
}

/// The panels of the chosen users, with what each method drew from the first seed.
///
/// # Errors
/// When a picture of the data cannot be used.
pub fn panels(
    comparison: &Comparison,
    visitors: &[Visitor<'_>],
    results: &Results,
    kept: &[Kept],
) -> anyhow::Result<Vec<UserPanel>> {
    let Some((metric, order)) = order(results) else {
        return Ok(Vec::new());
    };
    let places = chosen(order.len(), comparison.config.evaluation.shown);
    places
        .into_iter()
        .map(|(place, word)| {
            let user = order[place];
            let value = results.main().and_then(|m| m.scores[user].get(&metric));
            let value = value.map_or_else(|| "no picture".into(), |value| format!("{value:.1}"));
            let note = format!(
                "{word} of {} users by {}: {value}",
                order.len(),
                metric.key()
            );
            panel(comparison, &visitors[user], user, results, kept, note)
        })
        .collect()
}

fn panel(
    comparison: &Comparison,
    visitor: &Visitor<'_>,
    user: usize,
    results: &Results,
    kept: &[Kept],
    note: String,
) -> anyhow::Result<UserPanel> {
    let sample = &visitor.sample;
    let item = |item: usize, side: u32| -> anyhow::Result<Picture> {
        picture(
            &comparison.data.picture(item)?,
            describe(comparison, item),
            side,
        )
    };
    let history = visitor.history.history.iter().enumerate();
    let history = history
        .map(|(position, &place)| {
            let rank = sample.retrieved.iter().position(|other| *other == position);
            Ok(HistoryPicture {
                picture: item(place, SMALL)?,
                retrieved: rank.map(|rank| rank + 1),
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let plain = |label: &str, kind, picture| Drawing {
        label: label.to_string(),
        kind,
        picture,
        marks: Vec::new(),
        note: String::new(),
    };
    let reference = item(sample.reference, LARGE)?;
    let mut drawings = vec![plain("Reference", DrawingKind::Reference, reference)];
    for method in kept {
        let label = &method.label;
        let Some(own) = comparison.kept(method, visitor) else {
            continue;
        };
        let text = format!("{label} for user {}", sample.user);
        let kind = match label.as_str() {
            "RAGAR" => DrawingKind::Ours,
            _ => DrawingKind::Other,
        };
        let mut drawing = plain(label, kind, picture(&own, text, LARGE)?);
        let judged = results.methods.iter().find(|method| method.label == *label);
        let scores = judged.map(|method| &method.scores[user]);
        if let (Some(scores), 1) = (scores, results.seeds.len()) {
            for (word, metric) in [("style", Metric::Style), ("glyph", Metric::Glyph)] {
                if let Some(value) = scores.get(&metric) {
                    drawing.marks.push((word.to_string(), *value > 0.5));
                }
            }
        }
        drawings.push(drawing);
    }
    let mut taste = note;
    if let Some(target) = visitor.history.target {
        drawings.push(plain(
            "Right answer",
            DrawingKind::Target,
            item(target, LARGE)?,
        ));
        taste += &format!(". Right answer: {}", describe(comparison, target));
    }
    Ok(UserPanel {
        user: format!("User {}", sample.user),
        taste,
        history,
        keywords: sample.keywords.clone(),
        summary: match sample.summary == sample.keywords.join(", ") {
            true => String::new(),
            false => sample.summary.clone(),
        },
        drawings,
    })
}

/// An item in words: what the picture shows where that is known, else its text.
fn describe(comparison: &Comparison, item: usize) -> String {
    match comparison.data.stickers() {
        Some(stickers) => caption(&stickers.stickers[item]),
        None => comparison.data.folder().catalogue[item].text.clone(),
    }
}

/// A picture for the page, no larger than `side`.
fn picture(picture: &RgbImage, text: String, side: u32) -> anyhow::Result<Picture> {
    let (width, height) = picture.dimensions();
    let longest = width.max(height).max(1);
    let png = if longest > side {
        let scaled = |length: u32| (length * side / longest).max(1);
        let filter = FilterType::CatmullRom;
        png(&resize(picture, scaled(width), scaled(height), filter))?
    } else {
        png(picture)?
    };
    Ok(Picture { text, png })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_middle_and_worst_are_distinct_and_in_order() {
        for count in 0..40 {
            for shown in 0..20 {
                let places: Vec<usize> = chosen(count, shown).iter().map(|c| c.0).collect();
                assert_eq!(places.len(), shown.min(count), "{count} {shown}");
                assert!(
                    places.windows(2).all(|pair| pair[0] < pair[1]),
                    "{places:?}"
                );
                assert!(places.iter().all(|place| *place < count));
            }
        }
        let words: Vec<_> = chosen(11, 3);
        assert_eq!(words, [(0, "best"), (5, "median"), (10, "worst")]);
    }
}
