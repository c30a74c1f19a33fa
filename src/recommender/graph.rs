//! Weighted graphs as lists of edges sorted by row, and their products with node vectors on a device.
//!
//! A product gathers and sums and never scatters: scattering is serial, or wrong with repeated rows, on
//! several backends. The gradient of a product with a fixed graph is the product with its transpose,
//! which is laid out once as well.

use burn::tensor::{Device, Int, Tensor, TensorData, backend::Backend};

/// Edges gathered in one piece while multiplying: 4 MiB of vectors of width 64, which stay in a cache.
const EDGES_PER_PIECE: usize = 1 << 14;

/// `degree^-1/2`, or 0 for a node whose similarities sum to nothing or less.
pub fn degree_scale(degree: f32) -> f32 {
    if degree > 0.0 {
        degree.sqrt().recip()
    } else {
        0.0
    }
}

/// A sparse matrix on the host: row `i` holds the edges that node `i` receives from.
#[derive(Debug, Clone, PartialEq)]
pub struct Edges {
    num_columns: usize,
    offsets: Vec<usize>,
    columns: Vec<u32>,
    weights: Vec<f32>,
}

impl Edges {
    /// Collects rows of `(column, weight)`; each row is sorted and repeated columns are added up.
    pub fn from_rows(num_columns: usize, rows: impl IntoIterator<Item = Vec<(u32, f32)>>) -> Self {
        let mut edges = Self {
            num_columns,
            offsets: vec![0],
            columns: Vec::new(),
            weights: Vec::new(),
        };
        for mut row in rows {
            row.sort_by_key(|&(column, _)| column);
            let start = edges.columns.len();
            for (column, weight) in row {
                debug_assert!((column as usize) < num_columns);
                if edges.columns.len() > start && edges.columns.last() == Some(&column) {
                    *edges.weights.last_mut().expect("a weight per column") += weight;
                } else {
                    edges.columns.push(column);
                    edges.weights.push(weight);
                }
            }
            edges.offsets.push(edges.columns.len());
        }
        edges
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of columns.
    pub fn num_columns(&self) -> usize {
        self.num_columns
    }

    /// Number of edges.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there is no edge.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The edges of one row, by ascending column.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let range = self.offsets[row]..self.offsets[row + 1];
        self.columns[range.clone()]
            .iter()
            .copied()
            .zip(self.weights[range].iter().copied())
    }

    /// `own_share · self + other_share · other`.
    pub fn blend(&self, own_share: f32, other: &Self, other_share: f32) -> Self {
        assert_eq!(self.num_rows(), other.num_rows(), "rows of blended graphs");
        assert_eq!(
            self.num_columns, other.num_columns,
            "columns of blended graphs"
        );
        let rows = (0..self.num_rows()).map(|row| {
            let own = self
                .row(row)
                .map(|(column, weight)| (column, own_share * weight));
            let others = other
                .row(row)
                .map(|(column, weight)| (column, other_share * weight));
            own.chain(others).collect()
        });
        Self::from_rows(self.num_columns, rows)
    }

    /// The square graph with both sides scaled by `degree^-1/2`, the degree being a row's sum.
    pub fn normalised(&self) -> Self {
        let scales: Vec<f32> = (0..self.num_rows())
            .map(|row| degree_scale(self.row(row).map(|(_, weight)| weight).sum()))
            .collect();
        let mut scaled = self.clone();
        for (row, &scale) in scales.iter().enumerate() {
            for place in self.offsets[row]..self.offsets[row + 1] {
                scaled.weights[place] *= scale * scales[self.columns[place] as usize];
            }
        }
        scaled
    }

    /// Rows and columns exchanged.
    pub fn transpose(&self) -> Self {
        let mut rows = vec![Vec::new(); self.num_columns];
        for row in 0..self.num_rows() {
            for (column, weight) in self.row(row) {
                rows[column as usize].push((row as u32, weight));
            }
        }
        Self::from_rows(self.num_rows(), rows)
    }

    /// The whole matrix, row after row.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut cells = vec![0.0; self.num_rows() * self.num_columns];
        for row in 0..self.num_rows() {
            for (column, weight) in self.row(row) {
                cells[row * self.num_columns + column as usize] = weight;
            }
        }
        cells
    }
}

/// A fixed graph on a device.
#[derive(Debug, Clone)]
pub struct Graph<B: Backend> {
    layout: Layout<B>,
}

#[derive(Debug, Clone)]
enum Layout<B: Backend> {
    /// The whole matrix: the fastest where it is small.
    Dense(Tensor<B, 2>),
    /// Rows padded to a power of two, and those of the transpose.
    Padded {
        forward: PaddedRows<B>,
        transposed: PaddedRows<B>,
    },
}

impl<B: Backend> Graph<B> {
    /// Lays `edges` out on `device`: as a matrix if it has at most `dense_cells` cells.
    pub fn new(edges: &Edges, dense_cells: usize, device: &Device<B>) -> Self {
        let shape = [edges.num_rows(), edges.num_columns()];
        let layout = if shape[0] * shape[1] <= dense_cells {
            Layout::Dense(Tensor::from_data(
                TensorData::new(edges.to_dense(), shape),
                device,
            ))
        } else {
            Layout::Padded {
                forward: PaddedRows::new(edges, device),
                transposed: PaddedRows::new(&edges.transpose(), device),
            }
        };
        Self { layout }
    }

    /// The product with `vectors` `[columns, width]`: `[rows, width]`.
    pub fn propagate(&self, vectors: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.layout {
            Layout::Dense(matrix) => matrix.clone().matmul(vectors),
            Layout::Padded { forward, .. } => forward.multiply(vectors),
        }
    }

    /// The product of the transpose with `vectors` `[rows, width]`: `[columns, width]`. This carries the
    /// gradient of [`Self::propagate`]'s output back to its input.
    pub fn propagate_back(&self, vectors: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.layout {
            Layout::Dense(matrix) => matrix.clone().transpose().matmul(vectors),
            Layout::Padded { transposed, .. } => transposed.multiply(vectors),
        }
    }
}

/// Rows grouped by padded length, so that a product is a gather, a multiplication and a sum per group.
///
/// Rows without an edge stand in no group: they all take the one row of zeros that follows the groups' rows.
#[derive(Debug, Clone)]
pub(super) struct PaddedRows<B: Backend> {
    pieces: Vec<Piece<B>>,
    /// Where each row of the matrix stands among the rows of all pieces.
    places: Tensor<B, 1, Int>,
}

#[derive(Debug, Clone)]
struct Piece<B: Backend> {
    columns: Tensor<B, 1, Int>,
    weights: Tensor<B, 3>,
}

impl<B: Backend> PaddedRows<B> {
    pub fn new(edges: &Edges, device: &Device<B>) -> Self {
        let count = |row: usize| edges.offsets[row + 1] - edges.offsets[row];
        let padded = |row: usize| count(row).next_power_of_two();
        let mut order: Vec<usize> = (0..edges.num_rows())
            .filter(|&row| count(row) > 0)
            .collect();
        order.sort_by_key(|&row| padded(row));

        let mut places = vec![order.len() as i32; edges.num_rows()];
        for (place, &row) in order.iter().enumerate() {
            places[row] = place as i32;
        }
        let mut pieces = Vec::new();
        for group in order.chunk_by(|&a, &b| padded(a) == padded(b)) {
            let length = padded(group[0]);
            for rows in group.chunks((EDGES_PER_PIECE / length).max(1)) {
                // Padding gathers column 0 with weight 0.
                let mut columns = vec![0i32; rows.len() * length];
                let mut weights = vec![0f32; rows.len() * length];
                for (place, &row) in rows.iter().enumerate() {
                    for (edge, (column, weight)) in edges.row(row).enumerate() {
                        columns[place * length + edge] = column as i32;
                        weights[place * length + edge] = weight;
                    }
                }
                let num_edges = columns.len();
                pieces.push(Piece {
                    columns: Tensor::from_data(TensorData::new(columns, [num_edges]), device),
                    weights: Tensor::from_data(
                        TensorData::new(weights, [rows.len(), 1, length]),
                        device,
                    ),
                });
            }
        }
        let num_rows = places.len();
        Self {
            pieces,
            places: Tensor::from_data(TensorData::new(places, [num_rows]), device),
        }
    }

    pub fn multiply(&self, vectors: Tensor<B, 2>) -> Tensor<B, 2> {
        let [_, width] = vectors.dims();
        let nothing = Tensor::zeros([1, width], &vectors.device());
        let sums = self
            .pieces
            .iter()
            .map(|piece| {
                let [rows, _, length] = piece.weights.dims();
                let gathered = vectors
                    .clone()
                    .select(0, piece.columns.clone())
                    .reshape([rows, length, width]);
                // A product per row: nothing of the gathered vectors' size is written but themselves.
                let sums = piece.weights.clone().matmul(gathered);
                sums.reshape([rows, width])
            })
            .chain([nothing])
            .collect();
        Tensor::cat(sums, 0).select(0, self.places.clone())
    }
}
