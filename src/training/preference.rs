//! Training of the preference model.
