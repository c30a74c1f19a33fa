//! Who says what a picture shows, where the right answer is known: a classifier on CLIP's embeddings names the style; the recogniser
//! names the glyph, or CLIP's nearest pictures do where there is none for the data's glyphs.

use std::collections::{BTreeSet, HashMap};

use anyhow::Context as _;
use burn::tensor::Device;
use image::RgbImage;

use super::{DataSet, Labels};
use crate::app::backend::Backend;
use crate::app::config::RunConfig;
use crate::data::pixels::{fitted, to_batch};
use crate::evaluation::similarity::mean_cosine;
use crate::evaluation::truth::{BoundItems, Bounds, LabelledItems, Named, Task, Truth, TruthJudge};
use crate::networks::recogniser::Recogniser;
use crate::optimisation::Progress;
use crate::pretrained::{self, hub};

/// Cosine from which on a picture counts as an item of the catalogue: it is then not compared with itself.
const SAME: f64 = 100.0 * (1.0 - 1e-6);
/// Pictures that the recogniser looks at together.
const BATCH: usize = 64;

/// Names style and glyph of pictures.
pub struct StickerJudge<'a> {
    labels: Labels,
    data: &'a DataSet,
    /// CLIP's embeddings of the items.
    visual: &'a [Vec<f32>],
    nearest: TruthJudge,
    recogniser: Option<Known>,
}

/// A recogniser that knows all glyphs of the data.
struct Known {
    network: Recogniser<Backend>,
    side: u32,
    /// The data's numbers of the network's glyphs; one that the data lack has none.
    glyphs: Vec<Option<usize>>,
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
            recogniser: known(config, &labels, device, progress)?,
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
    pub fn method(&self) -> &'static str {
        match self.recogniser {
            Some(_) => {
                "style@1: a classifier trained on training pairs names the target's style. glyph@1 and glyph@5: a network trained on \
                 them names its glyph."
            }
            None => {
                "style@1: a classifier trained on training pairs names the target's style. glyph@1 and glyph@5: the nearest real \
                 stickers show the target's glyph."
            }
        }
    }

    /// What pictures show. `embeddings` are CLIP's of the same pictures.
    pub fn name(&self, pictures: &[&RgbImage], embeddings: &[Vec<f32>]) -> Vec<Named> {
        let nearest = embeddings.iter().map(|embedding| {
            let same = |item: &Vec<f32>| mean_cosine(embedding, std::slice::from_ref(item)) > SAME;
            self.nearest
                .name(embedding, self.visual.iter().position(same))
        });
        match &self.recogniser {
            None => nearest.collect(),
            Some(known) => nearest
                .zip(known.glyphs(pictures))
                .map(|(nearest, glyphs)| Named { glyphs, ..nearest })
                .collect(),
        }
    }

    /// Ceiling and floors of `tasks`; `seed` draws the random history images.
    ///
    /// # Errors
    /// A picture of the data that cannot be used.
    pub fn bounds(&self, tasks: &[Task], seed: u64) -> anyhow::Result<Bounds> {
        let items = self.items();
        let truths: Vec<Truth> = tasks.iter().map(|task| items.truth(task)).collect();
        let bounds = items.bounds(tasks, seed);
        let glyphs = match &self.recogniser {
            Some(known) => self.glyphs(known, &bounds)?,
            None => HashMap::new(),
        };
        Ok(bounds.verdicts(&truths, |item| {
            let nearest = self.nearest.name(&self.visual[item], Some(item));
            match glyphs.get(&item) {
                Some(glyphs) => Named {
                    glyphs: glyphs.clone(),
                    ..nearest
                },
                None => nearest,
            }
        }))
    }

    /// What the recogniser names in the items' own pictures.
    fn glyphs(
        &self,
        known: &Known,
        bounds: &BoundItems,
    ) -> anyhow::Result<HashMap<usize, Vec<usize>>> {
        let items: BTreeSet<usize> = bounds.all().collect();
        let items: Vec<usize> = items.into_iter().collect();
        let mut named = HashMap::new();
        for items in items.chunks(BATCH) {
            let pictures = items.iter().map(|item| self.data.picture(*item));
            let pictures: Vec<RgbImage> = pictures.collect::<Result<_, _>>()?;
            let found = known.glyphs(&pictures.iter().collect::<Vec<_>>());
            named.extend(items.iter().copied().zip(found));
        }
        Ok(named)
    }
}

impl Known {
    /// Five glyphs of each picture, the likeliest first.
    fn glyphs(&self, pictures: &[&RgbImage]) -> Vec<Vec<usize>> {
        let mut all = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(BATCH) {
            let sized = pictures
                .iter()
                .map(|picture| fitted((*picture).clone(), self.side));
            let sized: Vec<RgbImage> = sized.collect();
            let pixels = to_batch(&sized.iter().collect::<Vec<_>>(), &self.device);
            let named = self.network.name(pixels, 5).into_iter();
            // A glyph that the data lack is never right.
            all.extend(named.map(|places| -> Vec<usize> {
                let numbers = places.iter().map(|place| self.glyphs[*place]);
                numbers.map(|number| number.unwrap_or(usize::MAX)).collect()
            }));
        }
        all
    }
}

/// The recogniser of `models.recogniser`, if it knows all glyphs of the data; a note says where it does not.
fn known(
    config: &RunConfig,
    labels: &Labels,
    device: &Device<Backend>,
    progress: &dyn Progress,
) -> anyhow::Result<Option<Known>> {
    let place = &config.models.recogniser;
    if place.as_os_str().is_empty() {
        return Ok(None);
    }
    let shown = place.display();
    let folder = hub::located(place);
    if !folder.exists() {
        progress.note(&format!(
            "models.recogniser = \"{shown}\" is not there: CLIP's nearest pictures name the glyphs"
        ));
        return Ok(None);
    }
    let opened = pretrained::recogniser::open::<Backend>(&folder, device);
    let (found, network) = opened.with_context(|| format!("models.recogniser = \"{shown}\""))?;
    let needed = labels.glyphs();
    if let Some(glyph) = needed.iter().find(|glyph| !found.glyphs.contains(glyph)) {
        progress.note(&format!(
            "models.recogniser = \"{shown}\" was not taught glyph {glyph} of {}: CLIP's nearest pictures name the glyphs \
             (`ragar pretrain recogniser` teaches one)",
            config.data.folder.display()
        ));
        return Ok(None);
    }
    let number = |glyph: &String| needed.iter().position(|other| other == glyph);
    Ok(Some(Known {
        network,
        side: found.image_size as u32,
        glyphs: found.glyphs.iter().map(number).collect(),
        device: device.clone(),
    }))
}
