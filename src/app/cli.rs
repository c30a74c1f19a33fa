//! What can be typed. What it means is decided in [`super::session`] and [`super::commands`].

use std::path::PathBuf;
use std::sync::OnceLock;

use clap::{Args, Parser, Subcommand};

use super::backend;

const ABOUT: &str = "Personalised image generation: re-draws an item to a user's taste";

const LONG_ABOUT: &str = "\
Personalised image generation: re-draws an item to a user's taste.

RAGAR looks at the images a user has liked, retrieves those related to the item at hand, lets a language \
model say what they have in common, and draws the item accordingly. A recommender judges the drawings \
while the model learns.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "ragar", about = ABOUT, long_about = LONG_ABOUT, version = version())]
#[command(propagate_version = false, arg_required_else_help = true)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Where to compute: flex, tch, cuda, cuda:N, vulkan or wgpu (see `ragar devices`)
    #[arg(long, global = true, value_name = "DEVICE")]
    pub device: Option<String>,

    /// Configuration of the run, a TOML file such as configs/tiny.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// One value of the configuration, over what the file says; may be given more than once
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,

    /// Print the result as one JSON document
    #[arg(long, global = true)]
    pub json: bool,

    /// No progress bars and no remarks
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The program's contents.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build data sets
    #[command(subcommand, arg_required_else_help = true)]
    Data(DataCommand),
    /// Look into folders and files of networks
    #[command(subcommand, arg_required_else_help = true)]
    Model(ModelCommand),
    /// List the devices that can compute, and why the others cannot
    Devices,
}

/// `ragar data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Build the sticker data set from npm packages of emoji
    #[command(
        long_about = "Build the sticker data set from npm packages of emoji.\n\n\
            The same glyph exists in several art styles, so the right answer of a personalised drawing is \
            known. The packages are brought with `npm pack`; when one is missing, the message gives the \
            command. Everything but the two folders is configuration: see [stickers].",
        after_help = "Examples:\n  ragar data stickers --packages node_modules --out data/stickers\n  \
            ragar data stickers --packages node_modules --out data/all --set stickers.selection=all"
    )]
    Stickers {
        /// The folder that holds the unpacked packages
        #[arg(long, value_name = "DIR")]
        packages: PathBuf,
        /// The folder to write
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// `ragar model`.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Say what a Hugging Face folder or a .safetensors file holds, without loading it
    #[command(after_help = "Example:\n  ragar model inspect assets/models/tiny/diffusion")]
    Inspect {
        /// A folder with config.json or model_index.json, or a .safetensors file
        path: PathBuf,
        /// List every tensor
        #[arg(long)]
        tensors: bool,
    },
}

/// Version and compiled backends, as `--version` prints them.
fn version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let backends = backend::compiled();
        format!("{} (backends: {backends})", env!("CARGO_PKG_VERSION"))
    })
}
