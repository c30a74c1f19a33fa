//! What the frozen networks say of each item of the catalogue.

/// Caption, embeddings and keywords of every item, in the catalogue's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ItemFeatures {
    /// `c_i`: captions.
    pub captions: Vec<String>,
    /// `e_i`: caption embeddings, normalised, `[d]` each.
    pub semantic: Vec<Vec<f32>>,
    /// `f_i`: image embeddings, normalised, `[d]` each.
    pub visual: Vec<Vec<f32>>,
    /// The language model's keyword answer to each item.
    pub keywords: Vec<String>,
}

impl ItemFeatures {
    /// The number of items, which all four lists share.
    pub fn len(&self) -> usize {
        self.captions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.captions.is_empty()
    }
}
