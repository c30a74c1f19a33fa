//! Every shipped configuration loads, says what it is for, and survives being saved.

use std::path::{Path, PathBuf};

use ragar::app::config::{METHOD, RunConfig};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("configs/")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_shipped_configuration_loads() {
    let files = files();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        if let Err(error) = RunConfig::load(Some(&file), &[]) {
            panic!("{error}");
        }
    }
}

#[test]
fn headers_say_command_hardware_time_and_whether_measured() {
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("a configuration");
        let header: String = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .collect();
        for word in ["Command:", "Hardware:", "Time:", "Measured:"] {
            assert!(header.contains(word), "{}: no `{word}`", file.display());
        }
    }
}

#[test]
fn a_shipped_configuration_survives_being_saved() {
    for file in files() {
        let config = RunConfig::load(Some(&file), &[]).expect("a configuration");
        let folder = tempfile::tempdir().expect("a folder");
        config
            .save(
                folder.path(),
                "train",
                &[METHOD, &["stickers", "pretrain"]].concat(),
            )
            .expect("saved");
        let again = RunConfig::load(Some(&folder.path().join("config.toml")), &[]).expect("loads");
        assert_eq!(again, config, "{}", file.display());
    }
}

#[test]
fn the_demo_s_budgets_are_configurations() {
    for budget in [
        ragar::app::commands::DEMO_BUDGET,
        ragar::app::commands::DEMO_QUICK,
    ] {
        let values: Vec<String> = budget.iter().map(ToString::to_string).collect();
        RunConfig::load(None, &values).expect("known keys");
    }
}
