//! What long work tells whoever watches. Training knows no front end.

/// A watcher of long work.
pub trait Progress {
    /// A part of the work begins: its name and its number of steps.
    fn begin(&self, name: &str, total: usize);
    /// `position` steps of the current part are done; `message` is short, such as `loss 0.123`.
    fn advance(&self, position: usize, message: &str);
    /// The current part has ended.
    fn end(&self);
    /// A sentence for the user that outlives the bar.
    fn note(&self, text: &str);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _name: &str, _total: usize) {}
    fn advance(&self, _position: usize, _message: &str) {}
    fn end(&self) {}
    fn note(&self, _text: &str) {}
}
