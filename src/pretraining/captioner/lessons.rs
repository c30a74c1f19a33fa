//! What a step of the captioner's training shows, and what is to be learned from it.

use std::collections::BTreeSet;
use std::ops::Range;

use image::{GenericImage, GenericImageView, RgbImage};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::CaptionerPretrainingConfig;
use crate::data::stickers::{Sticker, Style, caption};
use crate::pretraining::augmentation::Augmentation;
use crate::pretraining::extra::ExtraPictures;
use crate::pretraining::vae::draw;
use crate::text::TextTokenizer;

/// Pieces along each side of a picture that is put together.
const PIECES: u32 = 2;

/// A picture, words about it, and what is asked.
pub(super) struct Lesson {
    /// Channels, rows, columns in [−1, 1].
    pub pixels: Vec<f32>,
    /// Start token and words.
    pub row: Vec<u32>,
    /// Places in `row` of the words that are to be learned; the others are given.
    pub learned: Range<usize>,
    /// What the heads are to say.
    pub answer: Answer,
}

/// Place of the right name among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Glyph(usize),
    Style(usize),
}

impl Answer {
    pub(super) fn glyph(&self) -> Option<usize> {
        match self {
            Answer::Glyph(place) => Some(*place),
            Answer::Style(_) => None,
        }
    }

    pub(super) fn style(&self) -> Option<usize> {
        match self {
            Answer::Style(place) => Some(*place),
            Answer::Glyph(_) => None,
        }
    }
}

/// All that can be drawn from.
pub(super) struct Curriculum<'a> {
    /// Training pairs, each with its glyph's place and its caption in every style.
    own: Vec<Labelled<'a>>,
    num_glyphs: usize,
    /// Those that training pairs are in.
    styles: Vec<Shown<'a>>,
    num_extra: usize,
}

struct Labelled<'a> {
    image: &'a RgbImage,
    glyph: usize,
    /// One for each of the curriculum's styles.
    captions: Vec<Vec<u32>>,
}

/// A style: how a caption in it begins, and who shows it.
struct Shown<'a> {
    beginning: Vec<u32>,
    own: Vec<&'a RgbImage>,
    extra: Vec<&'a RgbImage>,
}

/// The styles that the stickers at `places` are in.
pub(super) fn styles(stickers: &[Sticker], places: &[usize]) -> Vec<Style> {
    let shown = |style: &Style| places.iter().any(|place| stickers[*place].style == *style);
    Style::ALL.into_iter().filter(shown).collect()
}

/// What `sticker`'s caption would be in `style`, in tokens from the start to the end token.
pub(super) fn tokens(tokenizer: &TextTokenizer, sticker: &Sticker, style: Style) -> Vec<u32> {
    let text = caption(&Sticker {
        style,
        ..sticker.clone()
    });
    let mut row = tokenizer.encode(&text);
    row.extend(tokenizer.eos_id());
    row
}

impl<'a> Curriculum<'a> {
    /// Of the `stickers` at the places `training`, and of what may be learned of further glyphs.
    pub(super) fn new(
        stickers: &'a [Sticker],
        images: &'a [RgbImage],
        training: &[usize],
        extra: Option<ExtraPictures<'a>>,
        tokenizer: &TextTokenizer,
    ) -> Self {
        let sticker = |place: &usize| &stickers[*place];
        let glyphs: BTreeSet<&str> = training.iter().map(|p| sticker(p).glyph.as_str()).collect();
        let glyphs: Vec<&str> = glyphs.into_iter().collect();
        let styles = styles(stickers, training);
        let captions = |sticker: &Sticker| {
            let styles = styles.iter();
            styles
                .map(|style| tokens(tokenizer, sticker, *style))
                .collect()
        };
        let own = training
            .iter()
            .map(|place| Labelled {
                image: &images[*place],
                glyph: glyphs
                    .binary_search(&sticker(place).glyph.as_str())
                    .expect("gathered from the same stickers"),
                captions: captions(sticker(place)),
            })
            .collect();
        let usable = extra.map(|extra| extra.usable(stickers));
        let usable = usable.unwrap_or_default();
        let shown = |style: Style| {
            let own = training.iter().filter(|p| sticker(p).style == style);
            let extra = extra.iter().flat_map(|extra| {
                let places = usable.iter();
                places
                    .filter(|place| extra.stickers[**place].style == style)
                    .map(|place| &extra.images[*place])
            });
            Shown {
                beginning: tokenizer.encode(&format!("a {} sticker of", style.words())),
                own: own.map(|place| &images[*place]).collect(),
                extra: extra.collect(),
            }
        };
        Self {
            own,
            num_glyphs: glyphs.len(),
            styles: styles.iter().copied().map(shown).collect(),
            num_extra: usable.len(),
        }
    }

    /// Pictures of further glyphs.
    pub(super) fn num_extra(&self) -> usize {
        self.num_extra
    }

    /// How many glyphs and styles the heads can name.
    pub(super) fn num_answers(&self) -> [usize; 2] {
        [self.num_glyphs, self.styles.len()]
    }

    /// The lessons of step `step`: first those of labels, then those of styles.
    pub(super) fn draw(&self, config: &CaptionerPretrainingConfig, step: usize) -> Vec<Lesson> {
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        random.set_stream(step as u64 + 1);
        let [labels, styles] = config.shares();
        let places = draw(self.own.len(), labels, step, config.seed);
        let mut lessons: Vec<Lesson> = places
            .into_iter()
            .map(|place| self.label(&self.own[place], config, &mut random))
            .collect();
        lessons.extend((0..styles).map(|_| self.style(config, &mut random)));
        lessons
    }

    /// Label and group after the words of a random style, so that they cannot be told from the style.
    fn label(
        &self,
        shown: &Labelled<'_>,
        config: &CaptionerPretrainingConfig,
        random: &mut ChaCha8Rng,
    ) -> Lesson {
        let style = random.random_range(0..self.styles.len());
        let row = shown.captions[style].clone();
        Lesson {
            pixels: config.augmentation.apply(shown.image, random),
            learned: self.styles[style].beginning.len()..row.len(),
            row,
            answer: Answer::Glyph(shown.glyph),
        }
    }

    /// The words up to the label, of a picture or of pieces of several.
    fn style(&self, config: &CaptionerPretrainingConfig, random: &mut ChaCha8Rng) -> Lesson {
        let style = random.random_range(0..self.styles.len());
        let shown = &self.styles[style];
        let mut picture = |random: &mut ChaCha8Rng| -> &RgbImage {
            let extra = random.random_bool(config.extra_share);
            let among = match extra && !shown.extra.is_empty() {
                true => &shown.extra,
                false => &shown.own,
            };
            among.choose(random).expect("a style that is shown")
        };
        let pixels = match random.random_bool(config.whole_share) {
            true => Augmentation::SHARP.apply(picture(random), random),
            false => Augmentation::SHARP.apply(&mosaic(&mut picture, random), random),
        };
        Lesson {
            pixels,
            row: shown.beginning.clone(),
            learned: 1..shown.beginning.len(),
            answer: Answer::Style(style),
        }
    }
}

/// A picture of pieces, each from anywhere in one of the drawn pictures.
fn mosaic<'a, R: Rng>(
    picture: &mut impl FnMut(&mut R) -> &'a RgbImage,
    random: &mut R,
) -> RgbImage {
    let side = picture(random).width();
    let mut whole = RgbImage::new(side, side);
    let edges = |piece: u32| piece * side / PIECES..(piece + 1) * side / PIECES;
    for (rows, columns) in (0..PIECES).flat_map(|y| (0..PIECES).map(move |x| (y, x))) {
        let (rows, columns) = (edges(rows), edges(columns));
        let (width, height) = (columns.len() as u32, rows.len() as u32);
        let from = picture(random);
        let x = random.random_range(0..=side - width);
        let y = random.random_range(0..=side - height);
        let piece = from.view(x, y, width, height);
        whole
            .copy_from(&*piece, columns.start, rows.start)
            .expect("a piece fits the place it was measured for");
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    const SIDE: u32 = 8;
    const HELD_OUT: Rgb<u8> = Rgb([0, 255, 0]);

    /// Two glyphs in two styles, each picture of one colour; the second glyph is held out in the second style.
    fn stickers() -> (Vec<Sticker>, Vec<RgbImage>) {
        let pairs = [
            ("dog", Style::Flat, Rgb([200, 0, 0])),
            ("dog", Style::Glossy, Rgb([0, 0, 200])),
            ("apple", Style::Flat, Rgb([250, 0, 0])),
            ("apple", Style::Glossy, HELD_OUT),
        ];
        let sticker = |(item, (label, style, colour)): (usize, (&str, Style, Rgb<u8>))| Sticker {
            item,
            glyph: label.into(),
            label: label.into(),
            tags: Vec::new(),
            group: "thing".into(),
            style,
            held_out: colour == HELD_OUT,
        };
        let images = pairs.map(|(.., colour)| RgbImage::from_pixel(SIDE, SIDE, colour));
        let stickers = pairs.into_iter().enumerate().map(sticker);
        (stickers.collect(), images.into())
    }

    fn config() -> CaptionerPretrainingConfig {
        CaptionerPretrainingConfig {
            augmentation: Augmentation::SHARP,
            batch_size: 6,
            ..Default::default()
        }
    }

    fn lessons(
        config: &CaptionerPretrainingConfig,
        extra: Option<ExtraPictures<'_>>,
    ) -> (Vec<Lesson>, TextTokenizer) {
        let (stickers, images) = stickers();
        let tokenizer =
            crate::pretraining::captioner::tokenizer(stickers.iter(), 400).expect("a vocabulary");
        let curriculum = Curriculum::new(&stickers, &images, &[0, 1, 2], extra, &tokenizer);
        let lessons = (0..60).flat_map(|step| curriculum.draw(config, step));
        (lessons.collect(), tokenizer)
    }

    /// The colours of a picture but for the white round it.
    fn colours(lesson: &Lesson) -> BTreeSet<[u8; 3]> {
        let area = (SIDE * SIDE) as usize;
        let byte = |value: f32| ((value + 1.0) * 127.5).round() as u8;
        let pixel = |place| [0, 1, 2].map(|channel| byte(lesson.pixels[channel * area + place]));
        (0..area)
            .map(pixel)
            .filter(|colour| *colour != [255; 3])
            .collect()
    }

    #[test]
    fn a_label_is_learned_after_the_words_of_any_style() {
        let (lessons, tokenizer) = lessons(&config(), None);
        let mut given = BTreeSet::new();
        for lesson in &lessons {
            let Answer::Glyph(glyph) = lesson.answer else {
                continue;
            };
            let label = ["an apple", "a dog"][glyph];
            let learned = tokenizer.decode(&lesson.row[lesson.learned.clone()]);
            assert_eq!(learned.trim(), format!("{label}, thing"));
            assert_eq!(lesson.row.last().copied(), tokenizer.eos_id());
            assert_eq!(lesson.learned.end, lesson.row.len());
            given.insert((glyph, tokenizer.decode(&lesson.row[..lesson.learned.start])));
        }
        assert_eq!(given.len(), 4, "both glyphs after both styles: {given:?}");
    }

    #[test]
    fn a_style_is_learned_from_its_own_pictures_and_no_label_with_it() {
        let (lessons, tokenizer) = lessons(&config(), None);
        let mut mixed = 0;
        for lesson in &lessons {
            let Answer::Style(style) = lesson.answer else {
                continue;
            };
            let words = ["a smooth flat sticker of", "a glossy 3d sticker of"][style];
            assert_eq!(tokenizer.decode(&lesson.row).trim(), words);
            assert_eq!(lesson.learned, 1..lesson.row.len());
            let colours = colours(lesson);
            let channel = [0, 2][style];
            assert!(
                colours.iter().all(|colour| colour[channel] >= 200),
                "{colours:?}"
            );
            mixed += usize::from(colours.len() > 1);
        }
        assert!(mixed > 0, "no picture is put together of two");
    }

    #[test]
    fn no_lesson_shows_a_pair_that_is_held_out() {
        let (lessons, _) = lessons(&config(), None);
        assert_eq!(lessons.len(), 360);
        assert!(
            lessons
                .iter()
                .all(|lesson| !colours(lesson).contains(&HELD_OUT.0))
        );
    }

    #[test]
    fn further_glyphs_show_styles_alone() {
        let (mut further, _) = stickers();
        for sticker in &mut further {
            sticker.glyph.push('2');
            sticker.held_out = false;
        }
        let grey = Rgb([90, 90, 90]);
        let images = vec![RgbImage::from_pixel(SIDE, SIDE, grey); further.len()];
        let extra = ExtraPictures {
            stickers: &further,
            images: &images,
        };
        let config = CaptionerPretrainingConfig {
            extra_share: 1.0,
            ..config()
        };
        let (lessons, _) = lessons(&config, Some(extra));
        for lesson in &lessons {
            let further = colours(lesson).contains(&grey.0);
            assert_eq!(further, lesson.answer.style().is_some());
        }
    }
}
