//! What can be typed. What it means is decided in [`super::session`] and [`super::commands`].

use std::path::PathBuf;
use std::sync::OnceLock;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::backend;
use super::comparison::MethodName;

pub mod loading;

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

    /// Report bad items and users and go on without them
    #[arg(long, global = true)]
    pub skip_bad: bool,

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
    /// Build and check data folders
    #[command(subcommand, arg_required_else_help = true)]
    Data(DataCommand),
    /// Look into folders and files of networks
    #[command(subcommand, arg_required_else_help = true)]
    Model(ModelCommand),
    /// See the whole method at work on the shipped stickers
    #[command(
        long_about = "See the whole method at work on the shipped stickers.\n\n\
            Trains the ranking model, writes captions and keywords, trains RAGAR at a small budget, draws for test users, and \
            writes report.html and report.json. The budget is configuration: see config.toml in the run's folder.",
        after_help = "Examples:\n  ragar demo\n  ragar demo --quick --out /tmp/demo\n  \
            ragar demo --set training.steps=200 --device tch"
    )]
    Demo {
        /// Ten seconds in place of a minute: too little to learn much
        #[arg(long)]
        quick: bool,
        /// The run's folder
        #[arg(long, value_name = "DIR", default_value = "runs/demo")]
        out: PathBuf,
    },
    /// Compute captions, embeddings and keywords of all items
    #[command(
        long_about = "Compute captions (BLIP-2), embeddings (CLIP) and keywords (the language model) of all items.\n\n\
            Kept by content in the feature store: only what is new is computed, and a stopped run loses nothing. The other \
            commands compute what they miss by themselves.",
        after_help = "Example:\n  ragar prepare --config configs/tiny.toml"
    )]
    Prepare,
    /// Train and judge the ranking model alone
    #[command(subcommand, arg_required_else_help = true)]
    Rank(RankCommand),
    /// Experiments about the method
    #[command(subcommand, arg_required_else_help = true)]
    Study(StudyCommand),
    /// Train the preference model
    #[command(
        long_about = "Train the preference model: adapter, [IMG] tokens, mapper and fusion, by the ranking model's reward.\n\n\
            Needs a ranking model (`ragar rank train`). The folder holds checkpoints, metrics.jsonl and config.toml; in the \
            end adapter/ (for PEFT), preference.safetensors and README.md. Stopped with Ctrl-C, the same command goes on from there.",
        after_help = "Examples:\n  ragar train --config configs/laptop.toml --out runs/train\n  \
            ragar train --set reflection.num_noises=0 --set training.steps=100"
    )]
    Train {
        /// The run's folder
        #[arg(long, value_name = "DIR", default_value = "runs/train")]
        out: PathBuf,
        /// Go on from a checkpoint that was written under another configuration
        #[arg(long)]
        accept_changes: bool,
    },
    /// Draw an item for a user
    #[command(
        after_help = "Examples:\n  ragar generate --run runs/train --user u1701\n  \
            ragar generate --run runs/demo/train --user u1701 --reference flat-1f354 --out hamburger.png"
    )]
    Generate {
        /// The folder of a finished `ragar train`
        #[arg(long, value_name = "DIR", default_value = "runs/train")]
        run: PathBuf,
        /// The user, as in histories.jsonl [default: the first of the test split]
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// The item to draw, as in items.csv [default: the user's own reference]
        #[arg(long, value_name = "ITEM")]
        reference: Option<String>,
        /// The PNG file to write
        #[arg(long, value_name = "FILE", default_value = "drawing.png")]
        out: PathBuf,
    },
    /// Say how much device memory a training takes
    #[command(
        long_about = "Say how much device memory a training takes, part by part.\n\n\
            Reads the config.json files of [models] and the run's configuration; weights need not be there, and no GPU.",
        after_help = "Examples:\n  ragar budget --config configs/a100-pog.toml\n  \
            ragar budget --config configs/a100-pog.toml --set models.dtype=f32 --set training.batch_size=8"
    )]
    Budget,
    /// Show a training as one HTML page: curves, pictures, events
    #[command(
        long_about = "Show a training as one HTML page: curves, pictures of the validation users, events.\n\n\
            Reads the folder of `ragar train`, finished or not, and needs nothing else: neither networks nor data.",
        after_help = "Examples:\n  ragar report runs/train\n  ragar report runs/train --out today.html --json"
    )]
    Report {
        /// The folder of a `ragar train`
        #[arg(value_name = "RUN", default_value = "runs/train")]
        run: PathBuf,
        /// The page to write [default: RUN/report.html]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Bundle a finished training, to draw with it elsewhere
    #[command(
        long_about = "Bundle a finished training: adapter, preference weights, configuration, model card.\n\n\
            With --with-models also the frozen networks, so that `ragar generate --run DIR` needs nothing but data there.",
        after_help = "Examples:\n  ragar export --run runs/train --out bundles/stickers\n  \
            ragar export --run runs/train --out bundles/stickers --with-models\n  \
            ragar generate --run bundles/stickers --set data.folder=my-data"
    )]
    Export {
        /// The folder of a finished `ragar train`
        #[arg(long, value_name = "DIR", default_value = "runs/train")]
        run: PathBuf,
        /// The folder to write
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Copy CLIP, captioner, language model and generator into it, too
        #[arg(long)]
        with_models: bool,
    },
    /// Methods against metrics on the test users
    #[command(
        long_about = "Methods against metrics on the test users: RAGAR, what it is compared with, and what costs nothing.\n\n\
            Every method draws for the same users from the same latents. PMG and Textual Inversion train on first use, in \
            OUT/methods. Pictures are kept in OUT/images: a stopped run goes on where it stopped. Written: report.html, \
            report.json, table.md, table.csv, table.tex, scores.json, scores.csv, paired.csv (docs/evaluation.md).",
        after_help = "Examples:\n  ragar eval --run runs/train\n  \
            ragar eval --run runs/train --methods sd,textual-inversion,pmg,ragar --set evaluation.users=50 --json\n  \
            ragar eval --methods reference,keywords,sd --out runs/floors"
    )]
    Eval {
        /// The folder of a finished `ragar train`; not needed without the method ragar
        #[arg(long, value_name = "DIR", default_value = "runs/train")]
        run: PathBuf,
        /// Methods, in the order of the tables
        #[arg(long, value_enum, value_name = "METHOD", value_delimiter = ',', default_values_t = MethodName::USUAL)]
        methods: Vec<MethodName>,
        /// Where to write [default: RUN/eval]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Train a network of the tiny family on the stickers
    #[command(
        long_about = "Train a network of the tiny family on the stickers.\n\n\
            Only training pairs are seen; quality is measured on held-out pairs. The folder holds checkpoints, \
            metrics.jsonl and, in the end, model/: a Hugging Face folder with a model card. Stopped with Ctrl-C, the \
            same command goes on from there. Order: clip, then captioner; vae and clip, then unet; vae, then the recognisers; llm any time.",
        after_help = "Examples:\n  ragar pretrain clip --config configs/tiny.toml\n  \
            ragar pretrain unet --device cuda --set models.clip=runs/pretrain/clip/model --set models.vae=runs/pretrain/vae/model\n  \
            ragar pretrain vae --set pretrain.vae.trainer.steps=200"
    )]
    Pretrain {
        /// Which network
        #[arg(value_enum)]
        network: PretrainNetwork,
        /// The run's folder [default: runs/pretrain/NETWORK]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// For clip, captioner, unet and style-recogniser: a sticker folder whose other glyphs are learned from too (`ragar data stickers --set stickers.selection=all`)
        #[arg(long, value_name = "DIR")]
        extra: Option<PathBuf>,
        /// A folder of weights to start from. For unet: config.json, diffusion_pytorch_model.safetensors. For clip: a whole CLIP, whose text tower rests
        #[arg(long, value_name = "DIR")]
        init: Option<PathBuf>,
    },
    /// List the devices that can compute, and why the others cannot
    Devices,
}

/// The tiny family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PretrainNetwork {
    /// CLIP: text and pictures in one space
    Clip,
    /// BLIP-2: a picture's caption; starts from CLIP's vision tower
    Captioner,
    /// Llama: keywords and summaries
    Llm,
    /// Autoencoder between pictures and latents
    Vae,
    /// Denoising network on latents, conditioned on CLIP's text states
    Unet,
    /// Judge of glyphs, for drawings whose right answer is known
    GlyphRecogniser,
    /// Judge of styles, for the same
    StyleRecogniser,
}

impl PretrainNetwork {
    /// The word on the command line and, with `_` for `-`, in `[pretrain.WORD]`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Clip => "clip",
            Self::Captioner => "captioner",
            Self::Llm => "llm",
            Self::Vae => "vae",
            Self::Unet => "unet",
            Self::GlyphRecogniser => "glyph-recogniser",
            Self::StyleRecogniser => "style-recogniser",
        }
    }
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
    /// Look for everything that is wrong with a data folder
    #[command(
        long_about = "Look for everything that is wrong with a data folder: missing or broken images, unknown items, \
            duplicate ids, empty histories, each named with its file and row. Exit code 1 when the folder cannot be used.",
        after_help = "Examples:\n  ragar data check assets/stickers\n  ragar data check my-data --json"
    )]
    Check {
        /// A folder with items.csv, interactions.csv, histories.jsonl and images/
        dir: PathBuf,
    },
    #[command(flatten)]
    Load(Box<loading::LoadCommand>),
    /// Bring the pictures whose addresses a data folder knows
    #[command(
        long_about = "Bring the pictures whose addresses a data folder knows (column url of items.csv).\n\n\
            Each host is asked at its pace, what is there is not asked for again, and a stopped run goes on where it was. \
            What fails stands in pictures-failed.jsonl with its reason. Addresses of private networks are not followed.",
        after_help = "Example:\n  ragar data pictures data/pog --parallel 16"
    )]
    Pictures(loading::PicturesArguments),
}

/// `ragar rank`.
#[derive(Debug, Subcommand)]
pub enum RankCommand {
    /// Train a ranking model on the data folder's interactions
    #[command(
        long_about = "Train a ranking model on the data folder's interactions.\n\n\
            `ranking.model.kind` says which: micro (the paper's), lattice, light-gcn, matrix-factorisation or popularity. \
            Validation recall stops the training; curves go to metrics.jsonl. Stopped with Ctrl-C, the same command goes on \
            from there to the same numbers.",
        after_help = "Examples:\n  ragar rank train --config configs/tiny.toml --out runs/rank\n  \
            ragar rank train --out runs/light-gcn --set ranking.model.kind=light-gcn"
    )]
    Train {
        /// The run's folder [default: models.ranking]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Recall and NDCG of a trained ranking model, with intervals; cold and warm items apart
    #[command(after_help = "Examples:\n  ragar rank eval --model runs/rank\n  \
            ragar rank eval --model runs/rank --set ranking.training.ndcg=micro")]
    Eval {
        /// The folder of a finished `ragar rank train` [default: models.ranking]
        #[arg(long, value_name = "DIR")]
        model: Option<PathBuf>,
    },
    /// Rank pictures for a user in an item's place, as the reward does
    #[command(
        after_help = "Example:\n  ragar rank score --model runs/rank --user u1701 drawing.png candidates/"
    )]
    Score {
        /// The folder of a finished `ragar rank train` [default: models.ranking]
        #[arg(long, value_name = "DIR")]
        model: Option<PathBuf>,
        /// The user, as in interactions.csv
        #[arg(long, value_name = "USER")]
        user: String,
        /// The item in whose place they stand, as in items.csv [default: the user's own reference]
        #[arg(long, value_name = "ITEM")]
        reference: Option<String>,
        /// Pictures, or folders of pictures
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<PathBuf>,
    },
}

/// `ragar study`.
#[derive(Debug, Subcommand)]
pub enum StudyCommand {
    /// Does the ranking model learn more from the items that retrieval finds? (paper Sec. 2, Fig. 2)
    #[command(
        long_about = "Does the ranking model learn more from the items that retrieval finds? (paper Sec. 2, Fig. 2)\n\n\
            Trains MICRO on retrieval.k items per user: those closest to the user's last item by caption (ret), those after \
            them (exp-ret), random ones, and, as a control, those closest to another user's last item. Recall@10 and NDCG@10 \
            of the last item, with intervals over users: assumptions.md, .json and .svg.",
        after_help = "Example:\n  ragar study assumptions --config configs/tiny.toml --out runs/assumptions --seeds 5"
    )]
    Assumptions {
        /// The run's folder
        #[arg(long, value_name = "DIR", default_value = "runs/assumptions")]
        out: PathBuf,
        /// Trainings per kind of history
        #[arg(long, value_name = "COUNT", default_value_t = 5)]
        seeds: u64,
    },
    /// What does each part of the method contribute? (paper Fig. 4)
    #[command(
        long_about = "What does each part of the method contribute? (paper Fig. 4)\n\n\
            Trains the preference model without retrieval, with other numbers of retrieved items and of noises, without each \
            loss, and with each of our options, from several seeds, and draws for the test users: ablation.md, .json and \
            .svg, with intervals over users and the difference to the method as configured. Goes on where it stopped.",
        after_help = "Examples:\n  ragar study ablation --config configs/tiny.toml --seeds 3\n  \
            ragar study ablation --config configs/tiny.toml --only losses --only learned-sigma"
    )]
    Ablation {
        /// The run's folder
        #[arg(long, value_name = "DIR", default_value = "runs/ablation")]
        out: PathBuf,
        /// Trainings per variant
        #[arg(long, value_name = "COUNT", default_value_t = 3)]
        seeds: u64,
        /// One group of variants (retrieval, noises, losses, options), or one variant by its folder's name (learned-sigma); may be
        /// given more than once [default: all]
        #[arg(long, value_name = "GROUP")]
        only: Vec<String>,
    },
    /// How noisy is the policy gradient, under each baseline, with and without common random numbers?
    #[command(
        after_help = "Example:\n  ragar study gradient --config configs/tiny.toml --samples 8 --repeats 32"
    )]
    Gradient {
        /// The run's folder
        #[arg(long, value_name = "DIR", default_value = "runs/gradient")]
        out: PathBuf,
        /// Training users
        #[arg(long, value_name = "COUNT", default_value_t = 8)]
        samples: usize,
        /// Gradients drawn for each
        #[arg(long, value_name = "COUNT", default_value_t = 32)]
        repeats: usize,
    },
    /// Does the ranking model prefer the right answer, and what could a reward gain at all? (stickers)
    #[command(
        long_about = "Does the ranking model prefer the right answer, and what could a reward gain at all? (stickers)\n\n\
            Judges the right answer's picture, the other drawings of its glyph and every picture of the catalogue in the \
            place of the reference, for users of split \"test\", with intervals over users.",
        after_help = "Example:\n  ragar study judge --config configs/tiny.toml --model runs/rank --model runs/rank-longer"
    )]
    Judge {
        /// A trained ranking model; may be given more than once [default: models.ranking]
        #[arg(long = "model", value_name = "DIR")]
        models: Vec<PathBuf>,
        /// Test users, 0 for all
        #[arg(long, value_name = "COUNT", default_value_t = 0)]
        users: usize,
    },
    /// Does the ranking model learn more from drawn pictures than from the references' own? (paper Table 4)
    #[command(
        long_about = "Does the ranking model learn more from drawn pictures than from the references' own? (paper Table 4)\n\n\
            Trains MICRO on the originals, and once per method with its pictures in the references' places. Recall@10 and \
            NDCG@10 of everyone's test items, and of the references for the users drawn for, with intervals over users: \
            augmentation.md and .json. Pictures are those that `ragar eval` keeps; what is missing is drawn.",
        after_help = "Example:\n  ragar study augmentation --run runs/train --out runs/augmentation --seeds 5"
    )]
    Augmentation {
        /// The folder of a finished `ragar train`; not needed without the method ragar
        #[arg(long, value_name = "DIR", default_value = "runs/train")]
        run: PathBuf,
        /// Whose pictures
        #[arg(long, value_enum, value_name = "METHOD", value_delimiter = ',', default_values_t = [MethodName::Pmg, MethodName::Ragar])]
        methods: Vec<MethodName>,
        /// Where `ragar eval` keeps pictures and trained methods [default: RUN/eval]
        #[arg(long, value_name = "DIR")]
        drawn: Option<PathBuf>,
        /// The study's folder
        #[arg(long, value_name = "DIR", default_value = "runs/augmentation")]
        out: PathBuf,
        /// Trainings per kind of picture
        #[arg(long, value_name = "COUNT", default_value_t = 5)]
        seeds: u64,
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
    /// Bring a repository of the Hugging Face hub
    #[command(
        long_about = "Bring a repository of the Hugging Face hub into the cache that all of its libraries share.\n\n\
            Only what loading needs is fetched: of several forms of the same weights one, safetensors first. A broken \
            download goes on where it stopped, also in a later run. HF_HOME says where the cache is, HF_ENDPOINT which \
            hub, HF_TOKEN who asks.",
        after_help = "Examples:\n  ragar model fetch openai/clip-vit-large-patch14\n  \
            ragar model fetch stable-diffusion-v1-5/stable-diffusion-v1-5 --variant fp16\n  \
            ragar model fetch Salesforce/blip2-opt-2.7b --revision main"
    )]
    Fetch {
        /// The repository: owner/name
        repository: String,
        /// A branch, a tag or a commit
        #[arg(long, default_value = "main")]
        revision: String,
        /// Weights of this variant where there are any
        #[arg(long, value_name = "WORD")]
        variant: Option<String>,
    },
    /// Prove that a checkpoint computes here what the reference library computes with it
    #[command(
        long_about = "Prove that a checkpoint computes here what the reference library computes with it.\n\n\
            The golden file holds inputs and the reference's outputs; `model-import/golden.py` writes one from any \
            checkpoint of the hub. Each output is compared with its largest allowed error, --atol plus --rtol times the \
            output's largest absolute value; token ids must be equal. Exit code 1 when one is off.",
        after_help = "Examples:\n  ragar model check models/clip --golden clip.safetensors\n  \
            ragar model check models/llama --golden llama.safetensors --adapter runs/train/adapter\n  \
            ragar model check models/unet --golden unet.safetensors --device cuda --atol 1e-3 --json"
    )]
    Check {
        /// The checkpoint's folder; left out for golden files that hold the weights too (kind micro)
        dir: Option<PathBuf>,
        /// Recorded inputs and outputs (docs/golden.md)
        #[arg(long, value_name = "FILE")]
        golden: PathBuf,
        /// A PEFT folder to apply [default: the one that the golden file names]
        #[arg(long, value_name = "DIR")]
        adapter: Option<PathBuf>,
        /// What to compute in; half-precision weights are widened to f32
        #[arg(long, value_enum, value_name = "DTYPE", default_value = "f32")]
        dtype: ComputeDtype,
        /// Largest absolute error
        #[arg(long, default_value_t = 1e-5, value_parser = tolerance)]
        atol: f64,
        /// Largest error relative to the output's largest absolute value
        #[arg(long, default_value_t = 1e-4, value_parser = tolerance)]
        rtol: f64,
    },
    /// Write any checkpoint as safetensors, in a data type of choice
    #[command(
        long_about = "Write any checkpoint as safetensors, in a data type of choice.\n\n\
            Reads safetensors (whole or in shards), PyTorch, GGUF and, where compiled in, ONNX. A folder is written with \
            its configurations and tokeniser beside one file of weights for each network in it.",
        after_help = "Examples:\n  ragar model convert models/llama --out models/llama-bf16 --dtype bf16\n  \
            ragar model convert model.gguf --out model.safetensors"
    )]
    Convert {
        /// A folder of a network or a pipeline, or a file of weights
        from: PathBuf,
        /// The folder to write, or a file ending in .safetensors
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
        /// The data type of the floats
        #[arg(long, value_enum, value_name = "DTYPE", default_value = "f32")]
        dtype: ComputeDtype,
    },
}

/// A floating-point type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ComputeDtype {
    /// Single precision
    #[value(alias = "float32")]
    F32,
    /// Half precision
    #[value(alias = "float16")]
    F16,
    /// Brain floats
    #[value(alias = "bfloat16")]
    Bf16,
}

/// A bound on an error.
fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("must be a number of at least 0".into()),
    }
}

/// Version and compiled backends, as `--version` prints them.
fn version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let backends = backend::compiled();
        format!("{} (backends: {backends})", env!("CARGO_PKG_VERSION"))
    })
}
