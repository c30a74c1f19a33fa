//! Tokens learned after training (textual inversion; Gal et al., 2022): more rows of the token table.

use burn::tensor::{Tensor, backend::Backend};

use super::text::ClipTextModel;

impl<B: Backend> ClipTextModel<B> {
    /// The tower with `vectors` (`[tokens, width]`) as the embeddings of the ids from `first_id` on. The table grows as
    /// far as they need; rows that nobody names are zero.
    ///
    /// # Panics
    /// When the vectors are not as wide as the tower.
    pub fn with_token_vectors(mut self, first_id: usize, vectors: Tensor<B, 2>) -> Self {
        let [count, width] = vectors.dims();
        self.embeddings.token_embedding.weight =
            self.embeddings.token_embedding.weight.map(|table| {
                let [rows, table_width] = table.dims();
                assert_eq!(
                    width, table_width,
                    "vectors of another width than the tower's"
                );
                let (device, tracked) = (table.device(), table.is_require_grad());
                let vectors = vectors.to_device(&device).cast(table.dtype());
                let mut parts = vec![table.clone().detach().narrow(0, 0, rows.min(first_id))];
                if rows < first_id {
                    let gap = Tensor::<B, 2>::zeros([first_id - rows, width], &device);
                    parts.push(gap.cast(table.dtype()));
                }
                parts.push(vectors);
                let end = first_id + count;
                if rows > end {
                    parts.push(table.detach().narrow(0, end, rows - end));
                }
                Tensor::cat(parts, 0).set_require_grad(tracked)
            });
        self
    }

    /// The embeddings of `count` ids from `first_id` on, `[tokens, width]`: what textual inversion saves.
    ///
    /// # Panics
    /// When the table ends before.
    pub fn token_vectors(&self, first_id: usize, count: usize) -> Tensor<B, 2> {
        let table = self.embeddings.token_embedding.weight.val();
        table.narrow(0, first_id, count)
    }
}
