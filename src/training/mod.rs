//! Training of the ranking model and of the preference model.

pub mod assumptions;
pub mod preference;
pub mod recommender;
