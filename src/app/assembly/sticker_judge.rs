//! Who says what a picture shows, where the right answer is known: two recognisers name style and glyph. Where one was not taught the
//! data's, a classifier on CLIP's embeddings names the style, CLIP's nearest pictures the glyph.

use std::collections::{BTreeSet, HashMap};

use anyhow::Context as _;
use burn::tensor::Device;
use image::RgbImage;

use super::{DataSet, Labels};
use crate::app::backend::Backend;
use crate::app::config::RunConfig;
use crate::data::pixels::{fitted, to_batch};
use crate::evaluation::similarity::mean_cosine;
use crate::evaluation::truth::{Bounds, LabelledItems, Named, Task, Truth, TruthJudge};
use crate::networks::recogniser::{Aspect, Recogniser};
use crate::optimisation::Progress;
use crate::pretrained::{self, hub};

/// Cosine from which on a picture counts as an item of the catalogue: it is then not compared with itself.
const SAME: f64 = 100.0 * (1.0 - 1e-6);
/// Pictures that a recogniser looks at together.
const BATCH: usize = 64;

/// Names style and glyph of pictures.
pub struct StickerJudge<'a> {
    labels: Labels,
    data: &'a DataSet,
    /// CLIP's embeddings of the items.
    visual: &'a [Vec<f32>],
    nearest: TruthJudge,
    glyphs: Option<Known>,
    styles: Option<Known>,
}

/// A recogniser that knows all glyphs, or all styles, of the data.
struct Known {
    network: Recogniser<Backend>,
    side: u32,
    /// The data's numbers of the network's names; one that the data lack has none.
    numbers: Vec<Option<usize>>,
    device: Device<Backend>,
}

impl<'a> StickerJudge<'a> {
    /// The judge for `data`; none where nobody knows what its pictures show.
    ///
    /// # Errors
    /// A recogniser that cannot be loaded, embeddings that do not match the labels.
    pub fn open(
        config: &RunConfig,
        data: &'a DataSet,
        visual: &'a [Vec<f32>],
        device: &Device<Backend>,
        progress: &dyn Progress,
    ) -> anyhow::Result<Option<Self>> {
        let Some(labels) = Labels::of(data) else {
            return Ok(None);
        };
        Ok(Some(Self {
            glyphs: known(config, Aspect::Glyph, &labels, device, progress)?,
            styles: known(config, Aspect::Style, &labels, device, progress)?,
            nearest: labels.items(visual).judge(&config.evaluation.style)?,
            labels,
            data,
            visual,
        }))
    }

    fn items(&self) -> LabelledItems<'_> {
        self.labels.items(self.visual)
    }

    /// What an item shows.
    pub fn shows(&self, item: usize) -> Truth {
        let items = self.items();
        Truth {
            style: items.styles[item],
            glyph: items.glyphs[item],
        }
    }

    /// How style and glyph are named, for a table's note.
    pub fn method(&self) -> String {
        let style = match self.styles {
            Some(_) => "a network trained on training pairs",
            None => "a classifier trained on training pairs' embeddings",
        };
        let glyph = match self.glyphs {
            Some(_) => "a network trained on them names its glyph",
            None => "the nearest real stickers show the target's glyph",
        };
        format!("style@1: {style} names the target's style. glyph@1 and glyph@5: {glyph}.")
    }

    /// What pictures show. `embeddings` are CLIP's of the same pictures.
    pub fn name(&self, pictures: &[&RgbImage], embeddings: &[Vec<f32>]) -> Vec<Named> {
        let nearest = embeddings.iter().map(|embedding| {
            let same = |item: &Vec<f32>| mean_cosine(embedding, std::slice::from_ref(item)) > SAME;
            self.nearest
                .name(embedding, self.visual.iter().position(same))
        });
        let mut named: Vec<Named> = nearest.collect();
        if let Some(known) = &self.glyphs {
            for (named, glyphs) in named.iter_mut().zip(known.name(pictures)) {
                named.glyphs = glyphs;
            }
        }
        if let Some(known) = &self.styles {
            for (named, styles) in named.iter_mut().zip(known.name(pictures)) {
                named.style = styles[0];
            }
        }
        named
    }

    /// Ceiling and floors of `tasks`; `seed` draws the random history images.
    ///
    /// # Errors
    /// A picture of the data that cannot be used.
    pub fn bounds(&self, tasks: &[Task], seed: u64) -> anyhow::Result<Bounds> {
        let items = self.items();
        let truths: Vec<Truth> = tasks.iter().map(|task| items.truth(task)).collect();
        let bounds = items.bounds(tasks, seed);
        let named = self.name_items(bounds.all())?;
        Ok(bounds.verdicts(&truths, |item| named[&item].clone()))
    }

    /// What is named in the items' own pictures.
    fn name_items(
        &self,
        items: impl Iterator<Item = usize>,
    ) -> anyhow::Result<HashMap<usize, Named>> {
        let items: BTreeSet<usize> = items.collect();
        let items: Vec<usize> = items.into_iter().collect();
        let mut named = HashMap::new();
        for items in items.chunks(BATCH) {
            let pictures = items.iter().map(|item| self.data.picture(*item));
            let pictures: Vec<RgbImage> = pictures.collect::<Result<_, _>>()?;
            let embeddings: Vec<Vec<f32>> = items
                .iter()
                .map(|item| self.visual[*item].clone())
                .collect();
            let found = self.name(&pictures.iter().collect::<Vec<_>>(), &embeddings);
            named.extend(items.iter().copied().zip(found));
        }
        Ok(named)
    }
}

impl Known {
    /// Five names of each picture, the likeliest first.
    fn name(&self, pictures: &[&RgbImage]) -> Vec<Vec<usize>> {
        let mut all = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(BATCH) {
            let sized = pictures
                .iter()
                .map(|picture| fitted((*picture).clone(), self.side));
            let sized: Vec<RgbImage> = sized.collect();
            let pixels = to_batch(&sized.iter().collect::<Vec<_>>(), &self.device);
            let named = self.network.name(pixels, 5).into_iter();
            // A name that the data lack is never right.
            all.extend(named.map(|places| -> Vec<usize> {
                let numbers = places.iter().map(|place| self.numbers[*place]);
                numbers.map(|number| number.unwrap_or(usize::MAX)).collect()
            }));
        }
        all
    }
}

/// The recogniser of `aspect` in `[models]`, if it knows all names of the data; a note says where it does not.
fn known(
    config: &RunConfig,
    aspect: Aspect,
    labels: &Labels,
    device: &Device<Backend>,
    progress: &dyn Progress,
) -> anyhow::Result<Option<Known>> {
    let (place, instead) = match aspect {
        Aspect::Glyph => (
            &config.models.glyph_recogniser,
            "CLIP's nearest pictures name the glyphs",
        ),
        Aspect::Style => (
            &config.models.style_recogniser,
            "a classifier on CLIP's embeddings names the styles",
        ),
    };
    if place.as_os_str().is_empty() {
        return Ok(None);
    }
    let word = aspect.word();
    let shown = format!("models.{word}_recogniser = \"{}\"", place.display());
    let folder = hub::located(place);
    if !folder.exists() {
        progress.note(&format!("{shown} is not there: {instead}"));
        return Ok(None);
    }
    let opened = pretrained::recogniser::open::<Backend>(&folder, device);
    let (found, network) = opened.with_context(|| shown.clone())?;
    if found.aspect != aspect {
        anyhow::bail!("{shown} names {}s, not {word}s", found.aspect.word());
    }
    let needed = labels.names(aspect);
    if let Some(name) = needed.iter().find(|name| !found.names.contains(name)) {
        progress.note(&format!(
            "{shown} was not taught {word} {name} of {}: {instead} (`ragar pretrain {word}-recogniser` teaches one)",
            config.data.folder.display()
        ));
        return Ok(None);
    }
    let number = |name: &String| needed.iter().position(|other| other == name);
    Ok(Some(Known {
        network,
        side: found.image_size as u32,
        numbers: found.names.iter().map(number).collect(),
        device: device.clone(),
    }))
}
