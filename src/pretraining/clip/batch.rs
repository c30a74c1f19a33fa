//! Batches in which both a wrong style and a wrong glyph stand beside the right one.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::TensorData;
use image::RgbImage;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{ClipPretrainingConfig, ClipPretrainingError, TrainingPictures};
use crate::data::stickers::language::named_style;
use crate::data::stickers::{Sticker, caption_variant};
use crate::pretraining::augmentation::Augmentation;
use crate::pretraining::extra::ExtraPictures;

/// What a random stream is for; no two uses share numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Vocabulary = 1,
    Order = 2,
    Batch = 3,
    Texts = 4,
    Patches = 5,
}

/// The generator of one use at one place: the same whatever was drawn before, so that a resumed run goes on exactly.
pub(super) fn stream(seed: u64, stream: Stream, place: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((stream as u64) << 48) + place as u64);
    rng
}

/// Draws the batch of any step.
pub(super) struct Sampler<'a> {
    stickers: &'a [Sticker],
    images: &'a [RgbImage],
    /// Positions of the training stickers of each glyph.
    glyphs: Vec<Vec<usize>>,
    /// Glyphs (positions in `glyphs`) of each group.
    groups: BTreeMap<&'a str, Vec<usize>>,
    /// Positions of all training stickers.
    training: Vec<usize>,
    extra: Option<ExtraPictures<'a>>,
    /// Positions of the extra stickers of each extra glyph.
    extra_glyphs: Vec<Vec<usize>>,
    num_extra_glyphs: usize,
    seed: u64,
    num_glyphs: usize,
    num_styles: usize,
    augmentation: Augmentation,
    /// The stickers' and the extra stickers' pictures out of the autoencoder.
    decoded: Option<[&'a [RgbImage]; 2]>,
    decoded_share: f64,
}

/// Stickers of a batch: what they are and, of the first of them, a description.
#[derive(Default)]
pub(super) struct Rows {
    /// Descriptions of the first rows; further pictures have none.
    pub texts: Vec<String>,
    /// Any glyph's number.
    glyphs: Vec<usize>,
    /// Position in the groups, where the group is one of those trained on.
    groups: Vec<Option<usize>>,
    styles: Vec<usize>,
    /// Whether the text names the style.
    styled: Vec<bool>,
}

/// Pictures, and descriptions of the first of them.
pub(super) struct Batch {
    pub rows: Rows,
    values: Vec<f32>,
    sides: [usize; 2],
}

impl<'a> Sampler<'a> {
    pub(super) fn new(
        config: &ClipPretrainingConfig,
        pictures: TrainingPictures<'a>,
    ) -> Result<Self, ClipPretrainingError> {
        let TrainingPictures {
            stickers,
            images,
            extra,
            decoded,
        } = pictures;
        check_pictures(config, stickers, images)?;
        if config.decoded_share > 0.0 && decoded.is_none() {
            return Err(ClipPretrainingError::Configuration {
                field: "decoded_share",
                reason: "there is no autoencoder to show pictures through".into(),
            });
        }
        if let Some([own, more]) = decoded {
            check_pictures(config, stickers, own)?;
            check_pictures(config, extra.map_or(&[], |extra| extra.stickers), more)?;
        }
        let mut extra_glyphs: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        if let Some(extra) = &extra {
            check_pictures(config, extra.stickers, extra.images)?;
            for place in extra.usable(stickers) {
                let glyph = &extra.stickers[place].glyph;
                extra_glyphs.entry(glyph).or_default().push(place);
            }
        }
        let extra_glyphs = extra_glyphs.into_values().collect();
        let mut by_glyph: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, sticker) in stickers.iter().enumerate() {
            if !sticker.held_out {
                by_glyph.entry(&sticker.glyph).or_default().push(place);
            }
        }
        let glyphs: Vec<Vec<usize>> = by_glyph.into_values().collect();
        if glyphs.len() < config.num_glyphs {
            return Err(ClipPretrainingError::Data(format!(
                "{} glyphs to train on, but num_glyphs = {}",
                glyphs.len(),
                config.num_glyphs
            )));
        }
        let training = (0..stickers.len())
            .filter(|place| !stickers[*place].held_out)
            .collect();
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (glyph, members) in glyphs.iter().enumerate() {
            groups
                .entry(&stickers[members[0]].group)
                .or_default()
                .push(glyph);
        }
        Ok(Self {
            stickers,
            images,
            glyphs,
            groups,
            training,
            extra,
            extra_glyphs,
            num_extra_glyphs: config.num_extra_glyphs,
            seed: config.seed,
            num_glyphs: config.num_glyphs,
            num_styles: config.num_styles,
            augmentation: config.augmentation.clone(),
            decoded,
            decoded_share: config.decoded_share,
        })
    }

    /// Half of the glyphs come from a shuffled round through all of them, the other half are neighbours from
    /// the same groups; each in at most `num_styles` of its training styles.
    pub(super) fn draw(&self, step: usize) -> Batch {
        let mut rng = stream(self.seed, Stream::Batch, step);
        let fresh = self.num_glyphs.div_ceil(2);
        let mut chosen: BTreeSet<usize> = self.round(step, fresh).into_iter().collect();
        let mut neighbours: Vec<usize> = Vec::new();
        for glyph in &chosen {
            let group = self.stickers[self.glyphs[*glyph][0]].group.as_str();
            neighbours.extend(&self.groups[group]);
        }
        neighbours.shuffle(&mut rng);
        let mut others: Vec<usize> = (0..self.glyphs.len()).collect();
        others.shuffle(&mut rng);
        for glyph in neighbours.into_iter().chain(others) {
            if chosen.len() >= self.num_glyphs {
                break;
            }
            chosen.insert(glyph);
        }

        let side = self.images[0].dimensions();
        let mut batch = Batch {
            rows: Rows::default(),
            values: Vec::new(),
            sides: [side.1 as usize, side.0 as usize],
        };
        for glyph in chosen {
            let mut members = self.glyphs[glyph].clone();
            members.shuffle(&mut rng);
            for place in members.into_iter().take(self.num_styles) {
                self.describe(place, glyph, &mut batch.rows, &mut rng);
                let decoded = self.decoded.map(|[own, _]| &own[place]);
                let image = self.either(&self.images[place], decoded, &mut rng);
                batch
                    .values
                    .extend(self.augmentation.apply(image, &mut rng));
            }
        }
        self.add_extra(&mut batch, &mut rng);
        batch
    }

    /// Glyphs that have no description, in several styles each.
    fn add_extra(&self, batch: &mut Batch, rng: &mut ChaCha8Rng) {
        let Some(extra) = &self.extra else {
            return;
        };
        let count = self.num_extra_glyphs.min(self.extra_glyphs.len());
        for glyph in rand::seq::index::sample(rng, self.extra_glyphs.len(), count) {
            let mut members = self.extra_glyphs[glyph].clone();
            members.shuffle(rng);
            for place in members.into_iter().take(self.num_styles) {
                let sticker = &extra.stickers[place];
                batch.rows.glyphs.push(self.glyphs.len() + glyph);
                batch.rows.groups.push(self.group_of(sticker));
                batch.rows.styles.push(sticker.style as usize);
                let decoded = self.decoded.map(|[_, more]| &more[place]);
                let image = self.either(&extra.images[place], decoded, rng);
                batch.values.extend(self.augmentation.apply(image, rng));
            }
        }
    }

    /// The picture itself or, at `decoded_share`, what the autoencoder gives back. Without a share no number is drawn.
    fn either<'p>(
        &self,
        image: &'p RgbImage,
        decoded: Option<&'p RgbImage>,
        rng: &mut ChaCha8Rng,
    ) -> &'p RgbImage {
        match decoded {
            Some(decoded) if self.decoded_share > 0.0 && rng.random_bool(self.decoded_share) => {
                decoded
            }
            _ => image,
        }
    }

    /// How many extra glyphs there are.
    pub(super) fn num_extra(&self) -> usize {
        self.extra_glyphs.len()
    }

    fn group_of(&self, sticker: &Sticker) -> Option<usize> {
        self.groups.keys().position(|group| *group == sticker.group)
    }

    /// Descriptions of `count` training stickers, drawn with replacement.
    pub(super) fn draw_texts(&self, step: usize, count: usize) -> Rows {
        let mut rng = stream(self.seed, Stream::Texts, step);
        let mut texts = Rows::default();
        for _ in 0..count {
            let place = self.training[rng.random_range(0..self.training.len())];
            let glyph = self.glyphs.iter().position(|g| g.contains(&place));
            self.describe(place, glyph.unwrap_or(0), &mut texts, &mut rng);
        }
        texts
    }

    fn describe(&self, place: usize, glyph: usize, texts: &mut Rows, rng: &mut ChaCha8Rng) {
        let sticker = &self.stickers[place];
        let text = caption_variant(sticker, rng);
        texts.styled.push(named_style(&text).is_some());
        texts.texts.push(text);
        texts.glyphs.push(glyph);
        texts.groups.push(self.group_of(sticker));
        texts.styles.push(sticker.style as usize);
    }

    /// Numbers of glyphs and groups told apart.
    pub(super) fn num_classes(&self) -> [usize; 2] {
        [self.glyphs.len(), self.groups.len()]
    }

    /// The `count` glyphs that are due at `step` in a shuffled order that is new every round.
    fn round(&self, step: usize, count: usize) -> Vec<usize> {
        let per_round = self.glyphs.len() / count;
        let (round, place) = (step / per_round.max(1), step % per_round.max(1));
        let mut order: Vec<usize> = (0..self.glyphs.len()).collect();
        order.shuffle(&mut stream(self.seed, Stream::Order, round));
        order[place * count..(place + 1) * count].to_vec()
    }
}

impl Rows {
    /// One-hot glyphs, `[rows, glyphs]`; nothing for glyphs beyond those.
    pub(super) fn glyph_answers(&self, num_glyphs: usize) -> TensorData {
        one_hot(&self.glyphs, num_glyphs, |glyph, _| {
            (*glyph < num_glyphs).then_some(*glyph)
        })
    }

    /// One-hot groups, `[rows, groups]`.
    pub(super) fn group_answers(&self, num_groups: usize) -> TensorData {
        one_hot(&self.groups, num_groups, |group, _| *group)
    }

    /// One-hot styles, `[rows, styles]`; with `as_said`, nothing where the text names none.
    pub(super) fn style_answers(&self, num_styles: usize, as_said: bool) -> TensorData {
        one_hot(&self.styles, num_styles, |style, row| {
            (!as_said || self.styled[row]).then_some(*style)
        })
    }

    /// One where the row's text describes the column's picture, `[texts, described pictures]`.
    pub(super) fn described(&self) -> TensorData {
        table(self.texts.len(), |text, picture| {
            self.glyphs[text] == self.glyphs[picture]
                && (!self.styled[text] || self.styles[text] == self.styles[picture])
        })
    }

    /// One where two different pictures show one glyph, `[pictures, pictures]`.
    pub(super) fn same_glyph(&self) -> TensorData {
        table(self.glyphs.len(), |row, column| {
            row != column && self.glyphs[row] == self.glyphs[column]
        })
    }
}

fn table(size: usize, holds: impl Fn(usize, usize) -> bool) -> TensorData {
    let values: Vec<f32> = (0..size * size)
        .map(|place| f32::from(holds(place / size, place % size)))
        .collect();
    TensorData::new(values, [size, size])
}

impl Batch {
    /// `[batch, 3, height, width]`.
    pub(super) fn pixels(&self) -> TensorData {
        let [height, width] = self.sides;
        let size = self.rows.glyphs.len();
        TensorData::new(self.values.clone(), [size, 3, height, width])
    }
}

fn one_hot<T>(rows: &[T], count: usize, class: impl Fn(&T, usize) -> Option<usize>) -> TensorData {
    let mut values = vec![0f32; rows.len() * count];
    for (number, row) in rows.iter().enumerate() {
        if let Some(class) = class(row, number) {
            values[number * count + class] = 1.0;
        }
    }
    TensorData::new(values, [rows.len(), count])
}

fn check_pictures(
    config: &ClipPretrainingConfig,
    stickers: &[Sticker],
    images: &[RgbImage],
) -> Result<(), ClipPretrainingError> {
    if stickers.len() != images.len() {
        return Err(ClipPretrainingError::Data(format!(
            "{} stickers but {} pictures",
            stickers.len(),
            images.len()
        )));
    }
    let side = config.sizes.image_size as u32;
    let other = stickers
        .iter()
        .zip(images)
        .find(|(_, image)| image.dimensions() != (side, side));
    match other {
        None => Ok(()),
        Some((sticker, image)) => Err(ClipPretrainingError::Data(format!(
            "the {} {} has {}×{} pixels, the network reads {side}×{side}: set sizes.image_size or build the stickers at that size",
            sticker.style,
            sticker.label,
            image.width(),
            image.height()
        ))),
    }
}

/// The class token and a share of the patches, the same for a whole batch, `[tokens]`.
pub(super) fn kept_tokens(seed: u64, step: usize, num_patches: usize, share: f64) -> TensorData {
    let mut patches: Vec<i32> = (1..=num_patches as i32).collect();
    patches.shuffle(&mut stream(seed, Stream::Patches, step));
    patches.truncate(((num_patches as f64 * share).round() as usize).max(1));
    patches.sort_unstable();
    patches.insert(0, 0);
    let size = patches.len();
    TensorData::new(patches, [size])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::stickers::Style;

    fn stickers() -> Vec<Sticker> {
        let mut all = Vec::new();
        for glyph in 0..12 {
            for (number, style) in Style::ALL.into_iter().enumerate() {
                all.push(Sticker {
                    item: all.len(),
                    glyph: format!("{glyph:04x}"),
                    label: format!("thing {glyph}"),
                    tags: vec!["tag".into()],
                    group: ["food", "animal"][glyph % 2].into(),
                    style,
                    held_out: number == glyph % 5,
                });
            }
        }
        all
    }

    fn pictures<'a>(stickers: &'a [Sticker], images: &'a [RgbImage]) -> TrainingPictures<'a> {
        TrainingPictures {
            stickers,
            images,
            extra: None,
            decoded: None,
        }
    }

    #[test]
    fn decoded_pictures_come_up_at_their_share() {
        let stickers = stickers();
        let plain = vec![RgbImage::from_pixel(64, 64, image::Rgb([255; 3])); stickers.len()];
        let decoded = vec![RgbImage::from_pixel(64, 64, image::Rgb([0; 3])); stickers.len()];
        let with = |share| ClipPretrainingConfig {
            num_glyphs: 6,
            num_styles: 3,
            decoded_share: share,
            ..Default::default()
        };
        let sampler = |config: &ClipPretrainingConfig, decoded| {
            let pictures = TrainingPictures {
                decoded,
                ..pictures(&stickers, &plain)
            };
            Sampler::new(config, pictures)
        };
        let dark = |share| {
            let config = with(share);
            let sampler = sampler(&config, Some([&decoded, &[]])).unwrap();
            let counts = (0..40).map(|step| {
                let batch = sampler.draw(step);
                let area = 3 * 64 * 64;
                let pictures = batch.values.chunks(area);
                pictures
                    .filter(|pixels| pixels.iter().sum::<f32>() < 0.5 * area as f32)
                    .count()
            });
            counts.sum::<usize>() as f64 / (40.0 * 18.0)
        };
        assert_eq!(dark(0.0), 0.0);
        assert_eq!(dark(1.0), 1.0);
        let half = dark(0.5);
        assert!((half - 0.5).abs() < 0.06, "{half}");
        let error = sampler(&with(0.5), None).err().unwrap();
        assert!(error.to_string().contains("decoded_share"), "{error}");
    }

    #[test]
    fn batches_repeat_hold_no_held_out_pair_and_know_their_positives() {
        let stickers = stickers();
        let images = vec![RgbImage::from_pixel(64, 64, image::Rgb([9, 99, 199])); stickers.len()];
        let config = ClipPretrainingConfig {
            num_glyphs: 6,
            num_styles: 3,
            ..Default::default()
        };
        let sampler = Sampler::new(&config, pictures(&stickers, &images)).unwrap();
        for step in 0..20 {
            let (batch, again) = (sampler.draw(step), sampler.draw(step));
            let (texts, repeated) = (&batch.rows, &again.rows);
            assert_eq!(texts.texts, repeated.texts);
            assert_eq!(batch.pixels(), again.pixels());
            assert_eq!(texts.texts.len(), 18);
            for (glyph, style) in texts.glyphs.iter().zip(&texts.styles) {
                assert_ne!(*style, glyph % 5, "a held-out pair in a batch");
            }
            let described: Vec<f32> = texts.described().iter::<f32>().collect();
            for row in 0..18 {
                let positives: f32 = described[row * 18..(row + 1) * 18].iter().sum();
                let expected = if texts.styled[row] { 1.0 } else { 3.0 };
                assert_eq!(positives, expected, "{}", texts.texts[row]);
                assert_eq!(described[row * 18 + row], 1.0);
            }
        }
    }

    #[test]
    fn every_glyph_comes_up_in_a_round() {
        let stickers = stickers();
        let images = vec![RgbImage::new(64, 64); stickers.len()];
        let config = ClipPretrainingConfig {
            num_glyphs: 4,
            ..Default::default()
        };
        let sampler = Sampler::new(&config, pictures(&stickers, &images)).unwrap();
        let seen: BTreeSet<usize> = (0..6).flat_map(|step| sampler.round(step, 2)).collect();
        assert_eq!(seen.len(), 12);
    }

    #[test]
    fn pictures_of_another_size_are_named() {
        let stickers = stickers();
        let images = vec![RgbImage::new(32, 32); stickers.len()];
        let config = ClipPretrainingConfig {
            num_glyphs: 4,
            ..Default::default()
        };
        let error = Sampler::new(&config, pictures(&stickers, &images))
            .err()
            .unwrap();
        assert!(error.to_string().contains("32×32"), "{error}");
    }
}
