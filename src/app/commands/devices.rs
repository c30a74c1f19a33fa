//! `ragar devices`: which of the compiled backends have hardware and a driver.

use std::fmt::Write as _;

use crate::app::backend;
use crate::app::session::Session;

/// Prints one line per device.
pub fn run(session: &Session) -> anyhow::Result<()> {
    let lines = backend::survey();
    let width = lines
        .iter()
        .map(|line| line.device.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for line in &lines {
        let mark = if line.usable { "usable  " } else { "unusable" };
        let _ = writeln!(text, "{:width$}  {mark}  {}", line.device, line.detail);
    }
    session.output.result(text, &lines)
}
