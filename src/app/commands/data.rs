//! `ragar data`: building and checking data folders.

use std::path::Path;

use crate::app::session::Session;
use crate::data::check;
use crate::data::stickers::{self, StickerOptions};

/// Builds the sticker folder `out` from the unpacked packages.
pub fn stickers(session: &Session, packages: &Path, out: &Path) -> anyhow::Result<()> {
    let options = StickerOptions {
        packages: packages.to_path_buf(),
        output: out.to_path_buf(),
        ..session.config.stickers.clone()
    };
    let report = stickers::build(&options)?;
    let users: usize = report.num_users.values().sum();
    let text = format!(
        "{}: {} glyphs, {} stickers ({} held out of every training), {users} users, {:.1} MB of images",
        out.display(),
        report.num_glyphs,
        report.num_items,
        report.num_held_out,
        report.image_bytes as f64 / 1e6
    );
    session.output.result(text, &report)
}

/// Lists everything wrong with the folder `dir`; fails when it cannot be used.
pub fn check(session: &Session, dir: &Path) -> anyhow::Result<()> {
    let report = check::check(dir, &session.config.data.image_limits)?;
    session.output.result(&report, &report)?;
    anyhow::ensure!(
        report.is_usable(),
        "{} cannot be used: {} errors",
        dir.display(),
        report.num_errors
    );
    Ok(())
}
