//! Q-Former.
