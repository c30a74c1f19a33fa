//! Keywords and summary by the language model.
