//! The users' rows of pictures.

use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::scores::Judged;
use super::{Exhibition, Visitor, Works};
use crate::app::pictures::png;
use crate::app::report::{Drawing, DrawingKind, HistoryPicture, Picture, UserPanel};
use crate::data::stickers::caption;

/// Longest side of a history's picture on the page, in pixels.
const SMALL: u32 = 96;
/// Longest side of the others.
const LARGE: u32 = 264;

/// The first visitors, as many as `evaluation.shown`.
///
/// # Errors
/// When a picture cannot be used.
pub fn panels(
    exhibition: &Exhibition<'_>,
    visitors: &[Visitor<'_>],
    works: &[Works],
    judged: &Judged,
) -> anyhow::Result<Vec<UserPanel>> {
    let shown = visitors.iter().take(exhibition.config.evaluation.shown);
    shown
        .enumerate()
        .map(|(place, visitor)| panel(exhibition, visitor, place, works, judged))
        .collect()
}

fn panel(
    exhibition: &Exhibition<'_>,
    visitor: &Visitor<'_>,
    place: usize,
    works: &[Works],
    judged: &Judged,
) -> anyhow::Result<UserPanel> {
    let sample = &visitor.sample;
    let item = |item: usize, side: u32| -> anyhow::Result<Picture> {
        picture(
            &exhibition.workshop.data.picture(item)?,
            describe(exhibition, item),
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
    let mut drawings = vec![Drawing {
        label: "Reference".into(),
        kind: DrawingKind::Reference,
        picture: item(sample.reference, LARGE)?,
        marks: Vec::new(),
        note: format!("rank {}", judged.references[place].rank),
    }];
    for (number, method) in works.iter().enumerate() {
        let verdicts = judged.truth.as_ref().map(|truth| &truth.methods[number]);
        let marks = verdicts.map_or_else(Vec::new, |verdicts| {
            let verdict = &verdicts[place];
            vec![
                ("style".to_string(), verdict.style),
                ("glyph".to_string(), verdict.glyph),
            ]
        });
        let text = format!("{} for user {}", method.name, sample.user);
        drawings.push(Drawing {
            label: method.name.to_string(),
            kind: match method.name {
                "RAGAR" => DrawingKind::Ours,
                _ => DrawingKind::Other,
            },
            picture: picture(&method.pictures[place], text, LARGE)?,
            marks,
            note: format!("rank {}", method.judgements[place].rank),
        });
    }
    if let Some(target) = visitor.history.target {
        drawings.push(Drawing {
            label: "Right answer".into(),
            kind: DrawingKind::Target,
            picture: item(target, LARGE)?,
            marks: Vec::new(),
            note: match exhibition.workshop.data.is_held_out(target) {
                true => "never trained on".into(),
                false => String::new(),
            },
        });
    }
    let wanted = visitor
        .history
        .target
        .map(|target| describe(exhibition, target));
    Ok(UserPanel {
        user: format!("User {}", sample.user),
        taste: wanted.map_or_else(String::new, |wanted| format!("Right answer: {wanted}")),
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
fn describe(exhibition: &Exhibition<'_>, item: usize) -> String {
    match exhibition.workshop.data.stickers() {
        Some(stickers) => caption(&stickers.stickers[item]),
        None => exhibition.workshop.data.folder().catalogue[item]
            .text
            .clone(),
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
