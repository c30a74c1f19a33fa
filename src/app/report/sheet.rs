//! The users' pictures as one image: what the README shows, without a browser.

use image::imageops::{FilterType, overlay, resize};
use image::{Rgb, RgbImage};

use super::{DrawingKind, Picture, UserPanel};

/// Side of a picture, in pixels.
const SIDE: u32 = 96;
/// Space around a picture.
const GAP: u32 = 10;
/// Space between the retrieved items and the drawings.
const AISLE: u32 = 26;
/// Most retrieved items shown.
const RETRIEVED: usize = 5;

/// A row for each user: the retrieved items, the most related first, then reference, drawings and right answer.
/// RAGAR's drawing and the right answer are framed in the page's colours. `None` without users.
///
/// # Errors
/// When a panel's picture is no PNG file.
pub fn sheet(users: &[UserPanel]) -> anyhow::Result<Option<RgbImage>> {
    let columns = users.iter().map(|user| user.drawings.len()).max();
    let Some(columns) = columns else {
        return Ok(None);
    };
    let step = SIDE + GAP;
    let width = (RETRIEVED + columns) as u32 * step + GAP + AISLE;
    let height = users.len() as u32 * step + GAP;
    let mut page = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    for (row, user) in users.iter().enumerate() {
        let top = GAP + row as u32 * step;
        let mut retrieved: Vec<_> = user
            .history
            .iter()
            .filter_map(|item| Some((item.retrieved?, &item.picture)))
            .collect();
        retrieved.sort_by_key(|(rank, _)| *rank);
        for (column, (_, picture)) in retrieved.into_iter().take(RETRIEVED).enumerate() {
            place(&mut page, picture, GAP + column as u32 * step, top)?;
        }
        let start = GAP + RETRIEVED as u32 * step + AISLE;
        for (column, drawing) in user.drawings.iter().enumerate() {
            let left = start + column as u32 * step;
            match drawing.kind {
                DrawingKind::Ours => frame(&mut page, left, top, Rgb([194, 65, 12])),
                DrawingKind::Target => frame(&mut page, left, top, Rgb([37, 99, 235])),
                DrawingKind::Reference | DrawingKind::Other => {}
            }
            place(&mut page, &drawing.picture, left, top)?;
        }
    }
    Ok(Some(page))
}

fn place(page: &mut RgbImage, picture: &Picture, left: u32, top: u32) -> anyhow::Result<()> {
    let picture = image::load_from_memory(&picture.png)?.to_rgb8();
    let picture = resize(&picture, SIDE, SIDE, FilterType::CatmullRom);
    overlay(page, &picture, i64::from(left), i64::from(top));
    Ok(())
}

/// A border of three pixels around a picture's place.
fn frame(page: &mut RgbImage, left: u32, top: u32, colour: Rgb<u8>) {
    let border = RgbImage::from_pixel(SIDE + 6, SIDE + 6, colour);
    overlay(page, &border, i64::from(left) - 3, i64::from(top) - 3);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::pictures::png;
    use crate::app::report::{Drawing, HistoryPicture};

    fn picture(colour: [u8; 3]) -> Picture {
        Picture {
            text: String::new(),
            png: png(&RgbImage::from_pixel(8, 8, Rgb(colour))).unwrap(),
        }
    }

    #[test]
    fn the_retrieved_stand_in_order_before_the_framed_drawing() {
        let item = |colour, retrieved| HistoryPicture {
            picture: picture(colour),
            retrieved,
        };
        let user = UserPanel {
            history: vec![
                item([1, 0, 0], Some(2)),
                item([2, 0, 0], None),
                item([3, 0, 0], Some(1)),
            ],
            drawings: vec![Drawing {
                label: "RAGAR".into(),
                kind: DrawingKind::Ours,
                picture: picture([0, 200, 0]),
                marks: Vec::new(),
                note: String::new(),
            }],
            ..UserPanel::default()
        };
        let page = sheet(&[user]).unwrap().unwrap();
        let middle = GAP + SIDE / 2;
        let colour = |x: u32| page.get_pixel(x, middle).0;
        assert_eq!(colour(middle), [3, 0, 0]);
        assert_eq!(colour(middle + SIDE + GAP), [1, 0, 0]);
        let drawing = GAP + 5 * (SIDE + GAP) + AISLE;
        assert_eq!(colour(drawing + SIDE / 2), [0, 200, 0]);
        assert_eq!(colour(drawing - 2), [194, 65, 12]);
        assert_eq!(sheet(&[]).unwrap(), None);
    }
}
