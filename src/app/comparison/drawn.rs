//! A method's pictures: from the disk, or drawn and kept there.

use image::RgbImage;
use serde_json::json;

use super::pictures::PictureCache;
use super::{Comparison, Places};
use crate::app::exhibition::Visitor;
use crate::app::failure::Interrupted;
use crate::baselines::{Method, MethodKind, Request};

/// The pictures of some users: users, then seeds.
pub type Drawn = Vec<Vec<Result<RgbImage, String>>>;

/// Pictures that a method drew for some users. Not all of them stand in memory at once.
pub struct Batch<'a> {
    /// Who drew.
    pub method: &'a dyn Method,
    /// The first of the users.
    pub first: usize,
    /// Their pictures.
    pub drawn: Drawn,
}

/// Where the drawings of a method lie.
pub struct Kept {
    /// The method's name in tables.
    pub label: String,
    cache: PictureCache,
}

impl Comparison {
    /// The picture of the first seed that a method drew for a user, where there is one.
    pub fn kept(&self, kept: &Kept, visitor: &Visitor<'_>) -> Option<RgbImage> {
        let request = Request {
            history: visitor.history,
            sample: &visitor.sample,
        };
        let seed = self.config.inference.seed;
        kept.cache.get(&request, &self.words(&request), seed)
    }

    /// Whatever decides a picture beside method, user, reference and seed.
    fn words(&self, request: &Request<'_>) -> String {
        let sample = request.sample;
        let catalogue = &self.data.folder().catalogue;
        let told = |item: usize| self.config.preparation.words(&catalogue[item].text);
        let history = &request.history.history;
        json!([
            sample.keywords,
            sample.summary,
            sample.preference_prompt,
            sample.global_prompt,
            sample.history_prompt,
            self.items.captions[sample.reference],
            catalogue[sample.reference].text,
            told(sample.reference),
            history,
            history.iter().map(|item| told(*item)).collect::<Vec<_>>(),
        ])
        .to_string()
    }

    /// The pictures of one method, from the disk or drawn now, handed to `work` some users at a time.
    pub(super) fn draw(
        &self,
        method: &dyn Method,
        requests: &[Request<'_>],
        places: Places<'_>,
        work: &mut impl FnMut(Batch<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Kept>> {
        let root = places.out.join("images");
        let cache = PictureCache::new(&root, method.name(), &method.fingerprint());
        let keep = method.kind() != MethodKind::Floor;
        let seeds = self.seeds();
        let name = format!("drawing: {}", method.label());
        places.progress.begin(&name, requests.len());
        let at_once = self.config.inference.images_per_batch;
        for (number, batch) in requests.chunks(at_once).enumerate() {
            let mut drawn: Drawn = vec![Vec::with_capacity(seeds.len()); batch.len()];
            for &seed in &seeds {
                let pictures = self.batch(method, batch, seed, keep.then_some(&cache))?;
                for (row, picture) in drawn.iter_mut().zip(pictures) {
                    row.push(picture);
                }
                if places.interrupt.is_raised() {
                    places.progress.end();
                    let text =
                        "interrupted, all pictures kept: run the same command again to go on";
                    return Err(Interrupted(text.into()).into());
                }
            }
            let first = number * at_once;
            work(Batch {
                method,
                first,
                drawn,
            })?;
            places.progress.advance(first + batch.len(), "");
        }
        places.progress.end();
        Ok(keep.then(|| Kept {
            label: method.label().to_string(),
            cache,
        }))
    }

    /// A picture per request, those of `cache` first.
    fn batch(
        &self,
        method: &dyn Method,
        batch: &[Request<'_>],
        seed: u64,
        cache: Option<&PictureCache>,
    ) -> anyhow::Result<Vec<Result<RgbImage, String>>> {
        let mut found: Vec<Option<Result<RgbImage, String>>> = batch
            .iter()
            .map(|request| cache?.get(request, &self.words(request), seed).map(Ok))
            .collect();
        let missing: Vec<usize> = (0..batch.len()).filter(|at| found[*at].is_none()).collect();
        let asked: Vec<Request<'_>> = missing.iter().map(|at| batch[*at]).collect();
        for (at, drawn) in missing.into_iter().zip(method.draw(&asked, seed)) {
            if let (Ok(picture), Some(cache)) = (&drawn, cache) {
                cache.put(&batch[at], &self.words(&batch[at]), seed, picture)?;
            }
            found[at] = Some(drawn.map_err(|error| error.to_string()));
        }
        let none = || Err("the method returned no picture".to_string());
        Ok(found
            .into_iter()
            .map(|found| found.unwrap_or_else(none))
            .collect())
    }
}
