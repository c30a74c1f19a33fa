//! The references' own pictures as the generator sees them, where drawing begins with them.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::generator::Generator;
use super::sample::Sample;

/// Scaled latents by item.
#[derive(Debug, Clone)]
pub struct ReferenceLatents<B: Backend> {
    by_item: BTreeMap<usize, Tensor<B, 4>>,
}

impl<B: Backend> ReferenceLatents<B> {
    /// The means of the frozen autoencoder. `pictures` gives items with their pictures, `[1, 3, height, width]` in [−1, 1] at
    /// the generator's own size.
    ///
    /// # Errors
    /// Those of `pictures`.
    pub fn encode<E>(
        generator: &Generator<B>,
        pictures: impl Iterator<Item = Result<(usize, Tensor<B, 4>), E>>,
    ) -> Result<Self, E> {
        let by_item = pictures.map(|picture| {
            let (item, picture) = picture?;
            Ok((item, generator.encode(picture)))
        });
        Ok(Self {
            by_item: by_item.collect::<Result<_, E>>()?,
        })
    }

    /// Those of the samples' references, `[samples, channels, height, width]`; none where one is missing.
    pub fn of(&self, samples: &[&Sample]) -> Option<Tensor<B, 4>> {
        let rows = samples
            .iter()
            .map(|sample| self.by_item.get(&sample.reference).cloned());
        let rows: Vec<_> = rows.collect::<Option<_>>()?;
        Some(Tensor::cat(rows, 0))
    }
}
