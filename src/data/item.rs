//! Items and the catalogue.
