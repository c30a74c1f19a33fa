//! Rows taken out of a table, and their gradients carried back to it.
//!
//! Taking rows is a gather. Its gradient adds every row's gradient to the table's row, which backends write as a
//! scatter: one thread per column on some, so that a table of one column is served by a single thread. Here each row
//! of the table gathers its own gradients and sums them, as the graphs do: parallel over rows, the same everywhere.

use burn::tensor::{Device, Int, Tensor, backend::Backend};

use super::graph::{Edges, PaddedRows};
use super::step::indices;

/// Which rows of a table are taken, repeated ones included.
#[derive(Debug, Clone)]
pub struct RowSelection<B: Backend> {
    places: Tensor<B, 1, Int>,
    /// For each row of the table, where it went.
    takers: PaddedRows<B>,
}

impl<B: Backend> RowSelection<B> {
    /// The given rows of tables with `num_rows` rows.
    ///
    /// # Panics
    /// When a row lies outside the table.
    pub fn new(rows: &[u32], num_rows: usize, device: &Device<B>) -> Self {
        let mut takers = vec![Vec::new(); num_rows];
        for (place, &row) in rows.iter().enumerate() {
            takers[row as usize].push((place as u32, 1.0));
        }
        let takers = Edges::from_rows(rows.len(), takers);
        Self {
            places: indices(rows, device),
            takers: PaddedRows::new(&takers, device),
        }
    }

    /// The rows of `table` `[rows of the table, width]`: `[rows taken, width]`.
    pub fn take(&self, table: Tensor<B, 2>) -> Tensor<B, 2> {
        table.select(0, self.places.clone())
    }

    /// The gradient of the table, `[rows of the table, width]`, from that of the rows taken, `[rows taken, width]`.
    pub fn give_back(&self, gradient: Tensor<B, 2>) -> Tensor<B, 2> {
        self.takers.multiply(gradient)
    }
}
