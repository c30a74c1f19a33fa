//! `ragar data`: building and checking data folders.

use std::path::Path;
use std::time::Duration;

use crate::app::cli::loading::{CommonLoad, LoadCommand, PicturesArguments};
use crate::app::failure::{Interrupted, Usage};
use crate::app::session::Session;
use crate::data::check;
use crate::data::fetching::{self, FetchError, FetchOptions, PrivateNetworks};
use crate::data::loading::movielens::{self, MovieLensOptions};
use crate::data::loading::pog::{self, PogOptions};
use crate::data::loading::recbole::{self, RecBoleOptions};
use crate::data::loading::ser30k::{self, Ser30kOptions};
use crate::data::loading::table::{self, TableOptions};
use crate::data::loading::{LoadError, LoadOptions, SelectionOptions};
use crate::data::stickers::{self, StickerOptions};
use crate::optimisation::Interrupt;

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

/// Makes a data folder of a published data set or of tables.
pub fn load(session: &Session, command: &LoadCommand) -> anyhow::Result<()> {
    let report = match command {
        LoadCommand::Movielens {
            source,
            posters,
            posters_by,
            min_rating,
            common,
        } => {
            let options = MovieLensOptions {
                source: source.clone(),
                posters: posters.clone(),
                posters_by: *posters_by,
                min_rating: *min_rating,
                load: load_options(session, common, 0),
            };
            movielens::load(&options, &common.out)
        }
        LoadCommand::Pog {
            source,
            items_per_user,
            outfits,
            common,
        } => {
            let usual = PogOptions::default();
            let mut load = load_options(session, common, usual.load.selection.min_item);
            // Drawn while reading.
            load.selection.max_users = 0;
            let options = PogOptions {
                source: source.clone(),
                num_users: common.users.unwrap_or(usual.num_users),
                items_per_user: items_per_user.unwrap_or(common.history + 1),
                outfits: *outfits,
                load,
            };
            pog::load(&options, &common.out)
        }
        LoadCommand::Ser30k {
            source,
            emotions,
            common,
        } => {
            let mut load = load_options(session, common, 0);
            // Invented, not drawn.
            load.selection.max_users = 0;
            let options = Ser30kOptions {
                source: source.clone(),
                num_users: common.users.unwrap_or(Ser30kOptions::default().num_users),
                emotions: emotions.clone(),
                load,
            };
            ser30k::load(&options, &common.out)
        }
        LoadCommand::Recbole {
            source,
            images,
            url,
            columns,
            common,
        } => {
            let columns = columns.clone();
            let options = RecBoleOptions {
                source: source.clone(),
                images: images.clone(),
                user: columns.user,
                item: columns.item,
                time: columns.time,
                rating: columns.rating,
                min_rating: columns.min_rating,
                text: columns.text,
                url: url.clone(),
                load: load_options(session, common, 0),
            };
            recbole::load(&options, &common.out)
        }
        LoadCommand::Table {
            source,
            items,
            images,
            image,
            item_key,
            delimiter,
            columns,
            common,
        } => {
            let columns = columns.clone();
            let options = TableOptions {
                interactions: source.clone(),
                items: items.clone(),
                images: images.clone(),
                delimiter: *delimiter,
                user: columns.user,
                item: columns.item,
                item_key: item_key.clone(),
                time: columns.time,
                rating: columns.rating,
                min_rating: columns.min_rating,
                text: columns.text,
                image: image.clone(),
                load: load_options(session, common, 0),
            };
            table::load(&options, &common.out)
        }
    };
    let report = report.map_err(|error| match error {
        // What was typed is wrong, not what was read.
        LoadError::Option { .. } | LoadError::Column { .. } => Usage(error.to_string()).into(),
        other => anyhow::Error::from(other),
    })?;
    session.output.result(&report, &report)
}

fn load_options(session: &Session, common: &CommonLoad, usual_min_item: usize) -> LoadOptions {
    LoadOptions {
        selection: SelectionOptions {
            history_length: common.history,
            histories: common.histories,
            min_user: common.min_user,
            min_item: common.min_item.unwrap_or(usual_min_item),
            max_users: common.users.unwrap_or(0),
            without_picture: common.without_picture,
            seed: common.seed,
        },
        encoding: common.encoding,
        skip_bad: session.config.data.skip_bad,
    }
}

/// Brings the pictures of a folder.
pub fn pictures(session: &Session, arguments: &PicturesArguments) -> anyhow::Result<()> {
    let options = FetchOptions {
        parallel: arguments.parallel,
        per_second: arguments.per_second,
        timeout: Duration::from_secs(arguments.timeout),
        retries: arguments.retries,
        private: match (arguments.allow_private, arguments.allow_address.clone()) {
            (true, _) => PrivateNetworks::All,
            (false, addresses) if addresses.is_empty() => PrivateNetworks::None,
            (false, addresses) => PrivateNetworks::These(addresses),
        },
        retry_failed: arguments.retry_failed,
        ..FetchOptions::default()
    };
    let interrupt = Interrupt::install();
    let watcher = session.output.watcher();
    let limits = &session.config.data.image_limits;
    let report = fetching::fetch(&arguments.dir, &options, limits, &interrupt, &watcher);
    let report = report.map_err(|error| match error {
        FetchError::Option { .. } => Usage(error.to_string()).into(),
        other => anyhow::Error::from(other),
    })?;
    session.output.result(&report, &report)?;
    if report.interrupted {
        return Err(Interrupted(
            "interrupted, all fetched is kept: run the same command again to go on".into(),
        )
        .into());
    }
    let none_came = report.num_fetched + report.num_there_before == 0 && report.num_failed > 0;
    anyhow::ensure!(!none_came, "not one picture came");
    Ok(())
}
