//! UNet, autoencoder and the whole pipeline against diffusers; what must be refused; what must not depend on luck.

use std::cell::Cell;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use model_import::SaveDtype;
use ragar::generation::generator::{GenerateOptions, Generator, Start};
use ragar::networks::diffusion::{UNetConfig, VaeConfig};
use ragar::networks::scheduler::SchedulerChoice;
use ragar::optimisation::parameters::{Selection, collect};
use ragar::pretrained::diffusion::{
    PretrainedDiffusion, open, open_unet, open_vae, save_unet, save_vae,
};
use ragar::pretraining::initial::seeded;

use crate::support::{Golden, TestBackend, compare, device, golden_dir};

/// Adds a little to the parameter called `path`, and to no other.
struct Nudge {
    path: &'static str,
    current: Vec<String>,
    found: bool,
}

impl Nudge {
    fn at<M: Module<TestBackend>>(module: M, path: &'static str) -> M {
        let mut nudge = Self {
            path,
            current: Vec::new(),
            found: false,
        };
        let module = module.map(&mut nudge);
        assert!(nudge.found, "no parameter {path}");
        module
    }
}

impl<B: Backend> ModuleMapper<B> for Nudge {
    // The variants of an enum are no part of the hub's names.
    fn enter_module(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.current.push(name.to_string());
        }
    }
    fn exit_module(&mut self, _name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.current.pop();
        }
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if self.current.join(".") != self.path {
            return param;
        }
        self.found = true;
        param.map(|tensor| tensor.add_scalar(0.01))
    }
}

fn difference(golden: &Golden, name: &str, actual: Tensor<TestBackend, 4>) -> f32 {
    (actual - golden.float::<4>(name)).abs().max().into_scalar()
}

/// Stable Diffusion 1.x, 2.x, the distilled networks without a middle, and levels that differ in every option.
#[test]
fn every_unet_matches_the_reference() {
    for (case, sensitive) in [
        (
            "unet-sd15",
            [
                "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
                "up_blocks.0.resnets.2.conv2.weight",
            ],
        ),
        (
            "unet-sd2",
            [
                "down_blocks.1.attentions.0.proj_in.weight",
                "mid_block.attentions.0.transformer_blocks.0.attn1.to_v.weight",
            ],
        ),
        (
            "unet-tiny-sd",
            [
                "down_blocks.2.attentions.0.proj_in.weight",
                "up_blocks.0.resnets.1.conv2.weight",
            ],
        ),
        (
            "unet-uneven",
            [
                "mid_block.resnets.0.conv1.weight",
                "up_blocks.1.attentions.2.transformer_blocks.1.attn2.to_v.weight",
            ],
        ),
    ] {
        unet_matches(case, sensitive);
    }
}

fn unet_matches(case: &str, sensitive: [&'static str; 2]) {
    let golden = Golden::open(case);
    let folder = golden_dir(case).join("model");
    let (_, unet) = open_unet::<TestBackend>(&folder, &device()).expect("a UNet");
    let run = |unet: &ragar::networks::diffusion::UNet2DConditionModel<TestBackend>| {
        unet.forward(
            golden.float("input.sample"),
            golden.int::<1>("input.timestep").float(),
            golden.float("input.encoder_hidden_states"),
        )
    };
    golden.check("output.sample", run(&unet));
    for path in sensitive {
        let nudged = Nudge::at(unet.clone(), path);
        let found = difference(&golden, "output.sample", run(&nudged));
        assert!(
            found > 1e-3,
            "{case}: {path}: the output moved by {found} only"
        );
    }
}

#[test]
fn autoencoder_matches_the_reference() {
    let golden = Golden::open("vae");
    let folder = golden_dir("vae").join("model");
    let (config, vae) = open_vae::<TestBackend>(&folder, &device()).expect("an autoencoder");
    assert_eq!(config.scaling_factor, 0.13025);
    let latent = vae.encode(golden.float("input.image"));
    golden.check("output.latent_mean", latent.mean);
    golden.check("output.latent_logvar", latent.logvar);
    golden.check("output.image", vae.decode(golden.float("input.latent")));

    let nudged = Nudge::at(vae.clone(), "encoder.mid_block.attentions.0.to_k.weight");
    let mean = nudged.encode(golden.float("input.image")).mean;
    let found = difference(&golden, "output.latent_mean", mean);
    assert!(found > 1e-3, "the latents moved by {found} only");
    let nudged = Nudge::at(vae, "decoder.up_blocks.3.resnets.2.norm2.beta");
    let image = nudged.decode(golden.float("input.latent"));
    let found = difference(&golden, "output.image", image);
    assert!(found > 1e-3, "the image moved by {found} only");
}

/// The first SD files name the autoencoder's attention otherwise, and do not say how latents are scaled.
#[test]
fn first_release_names_load_too() {
    let golden = Golden::open("vae-first-release");
    let folder = golden_dir("vae-first-release").join("model");
    let (config, vae) = open_vae::<TestBackend>(&folder, &device()).expect("an autoencoder");
    assert_eq!(config.scaling_factor, 0.18215);
    let latent = vae.encode(golden.float("input.image"));
    golden.check("output.latent_mean", latent.mean);
    golden.check("output.latent_logvar", latent.logvar);
    golden.check("output.image", vae.decode(golden.float("input.latent")));

    let nudged = Nudge::at(vae, "decoder.mid_block.attentions.0.to_v.weight");
    let image = nudged.decode(golden.float("input.latent"));
    let found = difference(&golden, "output.image", image);
    assert!(found > 1e-3, "the image moved by {found} only");
}

/// DDIM asks for none.
fn no_noise(_: usize) -> Tensor<TestBackend, 4> {
    unreachable!("a deterministic sampler")
}

fn pipeline() -> PretrainedDiffusion<TestBackend> {
    open(&golden_dir("pipeline").join("model"), &device()).expect("a pipeline")
}

#[test]
fn pipeline_matches_the_reference() {
    let golden = Golden::open("pipeline");
    let pipeline = pipeline();
    let texts: Vec<String> =
        serde_json::from_str(&golden.metadata("tokenizer_texts").expect("texts")).expect("a list");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (rows, _) = pipeline.text_encoder.tokenizer.encode_padded(&texts, 77);
    let expected: Vec<u32> = golden
        .data("output.tokenizer_ids")
        .iter::<i64>()
        .map(|id| id as u32)
        .collect();
    assert_eq!(rows.concat(), expected);

    let prompts = ["negative_prompt", "prompt"].map(|key| golden.metadata(key).expect("a prompt"));
    let states = pipeline.text_encoder.states(&prompts, &device());
    golden.check("output.prompt_embeds", states.clone());

    let number = |key: &str| -> f64 { golden.metadata(key).expect(key).parse().expect("a number") };
    let options = GenerateOptions {
        num_steps: number("num_inference_steps") as usize,
        guidance_scale: number("guidance_scale"),
        ..GenerateOptions::default()
    };
    let generator = Generator::new(pipeline.unet, pipeline.vae, pipeline.scheduler);
    let recorded = golden.float::<4>("output.latents_steps");
    let latents = generator
        .denoise(
            states.clone().narrow(0, 1, 1),
            states.clone().narrow(0, 0, 1),
            golden.float("input.latents"),
            &no_noise,
            &options,
            |step, latents| {
                let expected = recorded.clone().narrow(0, step, 1).into_data();
                let actual = latents.to_data();
                compare(&format!("latents {step}"), &expected, &actual, 1e-3, 1e-3);
            },
        )
        .expect("latents");
    compare(
        "latents",
        &golden.data("output.latents"),
        &latents.clone().into_data(),
        1e-3,
        1e-3,
    );
    let image = generator.decode(latents).add_scalar(1.0).div_scalar(2.0);
    compare(
        "image",
        &golden.data("output.image"),
        &image.into_data(),
        1e-3,
        0.0,
    );
}

#[test]
fn guidance_is_rescaled_as_the_reference_rescales_it() {
    let golden = Golden::open("pipeline-rescaled");
    let pipeline = pipeline();
    let prompts: Vec<String> =
        serde_json::from_str(&golden.metadata("prompts").expect("prompts")).expect("a list");
    let states = pipeline.text_encoder.states(&prompts, &device());
    let empty = pipeline.text_encoder.states(&[""], &device());
    let number = |key: &str| -> f64 { golden.metadata(key).expect(key).parse().expect("a number") };
    let generator = Generator::new(pipeline.unet, pipeline.vae, pipeline.scheduler);
    let recorded = golden.float::<5>("output.latents_steps");
    let draw = |guidance_rescale: f64| {
        let options = GenerateOptions {
            num_steps: number("num_inference_steps") as usize,
            guidance_scale: number("guidance_scale"),
            guidance_rescale,
            ..GenerateOptions::default()
        };
        let mut steps = Vec::new();
        let observe = |_: usize, latents: &Tensor<TestBackend, 4>| steps.push(latents.clone());
        let start = golden.float::<4>("input.latents");
        let (states, empty) = (states.clone(), empty.clone());
        generator
            .denoise(states, empty, start, &no_noise, &options, observe)
            .expect("latents");
        Tensor::stack::<5>(steps, 0)
    };
    let rescaled = draw(number("guidance_rescale"));
    compare(
        "latents",
        &recorded.clone().into_data(),
        &rescaled.into_data(),
        1e-4,
        1e-4,
    );
    let plain = draw(0.0);
    assert!((plain - recorded).abs().max().into_scalar() > 0.1);
}

/// Any sampler draws with the same pipeline; the one that adds noise asks once for every step but the last.
#[test]
fn a_run_may_choose_its_sampler() {
    let pipeline = pipeline();
    let states = pipeline
        .text_encoder
        .states(&["", "the red cat"], &device());
    let row = |i: usize| states.clone().narrow(0, i, 1);
    let generator = Generator::new(pipeline.unet, pipeline.vae, pipeline.scheduler);
    let golden = Golden::open("pipeline");
    let start = golden.float::<4>("input.latents");
    let draw = |scheduler: SchedulerChoice| {
        let (asked, calls) = (Cell::new(0), Cell::new(0));
        let noise = |index: usize| {
            asked.set(asked.get() + 1);
            start.clone().mul_scalar(-1.0 - index as f64)
        };
        let options = GenerateOptions {
            num_steps: 4,
            guidance_scale: 2.0,
            scheduler,
            guidance_rescale: 0.0,
            strength: 1.0,
        };
        let count = |_: usize, _: &Tensor<TestBackend, 4>| calls.set(calls.get() + 1);
        let latents = generator
            .denoise(row(1), row(0), start.clone(), &noise, &options, count)
            .expect("latents");
        (
            latents.into_data().to_vec::<f32>().expect("f32"),
            asked.get(),
            calls.get(),
        )
    };
    let (own, asked, calls) = draw(SchedulerChoice::Pipeline);
    assert_eq!((asked, calls), (0, 4));
    assert_eq!(own, draw(SchedulerChoice::Ddim).0);
    for (choice, noises, calls) in [
        (SchedulerChoice::Pndm, 0, 5),
        (SchedulerChoice::DpmSolver, 0, 4),
        (SchedulerChoice::DpmSolverKarras, 0, 4),
        (SchedulerChoice::Euler, 0, 4),
        (SchedulerChoice::EulerKarras, 0, 4),
        (SchedulerChoice::UniPc, 0, 4),
        (SchedulerChoice::Lcm, 3, 4),
    ] {
        let (latents, asked, called) = draw(choice);
        assert_eq!((asked, called), (noises, calls), "{choice:?}");
        assert!(latents.iter().all(|v| v.is_finite()), "{choice:?}");
        assert_ne!(latents, own, "{choice:?}");
        assert_eq!(latents, draw(choice).0, "{choice:?}");
    }
}

#[test]
fn strength_says_how_much_of_the_picture_is_left() {
    let pipeline = pipeline();
    let states = pipeline.text_encoder.states(&["", "a cat"], &device());
    let generator = Generator::new(pipeline.unet, pipeline.vae, pipeline.scheduler);
    let golden = Golden::open("pipeline");
    let noise = golden.float::<4>("input.latents");
    let picture = noise.clone().flip([2]).mul_scalar(0.7);
    let row = |i: usize| states.clone().narrow(0, i, 1);
    let draw = |strength: f64, pictures: Option<Tensor<TestBackend, 4>>, scheduler| {
        let calls = Cell::new(0);
        let start = Start {
            noise: noise.clone(),
            pictures,
        };
        let options = GenerateOptions {
            num_steps: 5,
            guidance_scale: 2.0,
            scheduler,
            guidance_rescale: 0.0,
            strength,
        };
        let count = |_: usize, _: &Tensor<TestBackend, 4>| calls.set(calls.get() + 1);
        let unused = |_: usize| noise.clone();
        generator
            .denoise(row(1), row(0), start, &unused, &options, count)
            .map(|latents| (latents, calls.get()))
    };
    let pipelines = SchedulerChoice::Pipeline;
    let drawn = |strength, pictures| draw(strength, pictures, pipelines).expect("latents");
    let far = |a: &Tensor<TestBackend, 4>, b: &Tensor<TestBackend, 4>| -> f32 {
        (a.clone() - b.clone()).powi_scalar(2).mean().into_scalar()
    };

    // From pure noise the picture does not matter, and without one strength does not.
    let (plain, calls) = drawn(1.0, None);
    assert_eq!(calls, 5);
    assert_eq!(far(&plain, &drawn(1.0, Some(picture.clone())).0), 0.0);
    assert_eq!(far(&plain, &drawn(0.4, None).0), 0.0);
    let mut before = far(&plain, &picture);
    for (strength, expected) in [(0.8, 4), (0.4, 2), (0.01, 1)] {
        let (latents, calls) = drawn(strength, Some(picture.clone()));
        assert_eq!(calls, expected, "strength {strength}");
        let distance = far(&latents, &picture);
        assert!(distance < before, "{strength}: {distance} after {before}");
        before = distance;
    }

    for choice in [SchedulerChoice::Pndm, SchedulerChoice::Lcm] {
        let error = draw(0.4, Some(picture.clone()), choice).expect_err("no way to begin there");
        assert!(error.to_string().contains("ddim"), "{error}");
        assert!(draw(1.0, Some(picture.clone()), choice).is_ok());
        let said = |strength| {
            let options = GenerateOptions {
                num_steps: 5,
                scheduler: choice,
                guidance_rescale: 0.0,
                strength,
                ..GenerateOptions::default()
            };
            generator.check(&options).map_err(|error| error.to_string())
        };
        assert_eq!(said(0.4), Err(error.to_string()));
        assert_eq!(said(1.0), Ok(()));
    }
}

/// Guidance is one batch: two images drawn together are those drawn apart.
#[test]
fn images_do_not_depend_on_their_batch() {
    let pipeline = pipeline();
    let states = pipeline
        .text_encoder
        .states(&["", "a cat", "the red sea"], &device());
    let generator = Generator::new(pipeline.unet, pipeline.vae, pipeline.scheduler);
    let golden = Golden::open("pipeline");
    let one = golden.float::<4>("input.latents");
    let both = Tensor::cat(vec![one.clone(), one.clone().mul_scalar(-1.0)], 0);
    let options = GenerateOptions {
        num_steps: 3,
        guidance_scale: 3.0,
        ..GenerateOptions::default()
    };
    let row = |i: usize| states.clone().narrow(0, i, 1);
    let together = generator
        .generate(
            states.clone().narrow(0, 1, 2),
            row(0),
            both,
            &no_noise,
            &options,
        )
        .expect("two images");
    let apart = generator
        .generate(row(2), row(0), one.mul_scalar(-1.0), &no_noise, &options)
        .expect("an image");
    compare(
        "second image",
        &apart.into_data(),
        &together.narrow(0, 1, 1).into_data(),
        1e-5,
        1e-5,
    );
}

#[test]
fn saved_folders_load_to_the_same_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, unet) =
        open_unet::<TestBackend>(&golden_dir("unet-sd15").join("model"), &device())
            .expect("a UNet");
    save_unet(folder.path(), &config, &unet, SaveDtype::F32).expect("saved");
    let (again, loaded) = open_unet::<TestBackend>(folder.path(), &device()).expect("loaded");
    assert_eq!(config, again);
    assert_eq!(
        collect::<TestBackend, _>(&unet, Selection::All),
        collect::<TestBackend, _>(&loaded, Selection::All)
    );
    let folder = tempfile::tempdir().expect("a folder");
    let (config, vae) = open_vae::<TestBackend>(&golden_dir("vae").join("model"), &device())
        .expect("an autoencoder");
    save_vae(folder.path(), &config, &vae, SaveDtype::F32).expect("saved");
    let (again, loaded) = open_vae::<TestBackend>(folder.path(), &device()).expect("loaded");
    assert_eq!(config, again);
    assert_eq!(
        collect::<TestBackend, _>(&vae, Selection::All),
        collect::<TestBackend, _>(&loaded, Selection::All)
    );
}

#[test]
fn configurations_that_would_change_the_arithmetic_are_refused() {
    let text =
        std::fs::read_to_string(golden_dir("unet-sd15").join("model/config.json")).expect("a file");
    let original: serde_json::Value = serde_json::from_str(&text).expect("json");
    for (key, value) in [
        ("class_embed_type", serde_json::json!("timestep")),
        ("attention_head_dim", serde_json::json!([8, 8])),
        ("norm_num_groups", serde_json::json!(5)),
        ("act_fn", serde_json::json!("gelu")),
        (
            "mid_block_type",
            serde_json::json!("UNetMidBlock2DSimpleCrossAttn"),
        ),
        ("time_cond_proj_dim", serde_json::json!(256)),
        ("resnet_out_scale_factor", serde_json::json!(1.5)),
        (
            "only_cross_attention",
            serde_json::json!([false, true, false, false]),
        ),
        ("down_block_types", serde_json::json!(["DownBlock2D"])),
    ] {
        let mut changed = original.clone();
        changed[key] = value;
        let config: UNetConfig = serde_json::from_value(changed).expect("a configuration");
        let error = config.validate().expect_err(key).to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
    let mut vae: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(golden_dir("vae").join("model/config.json")).expect("a file"),
    )
    .expect("json");
    vae["down_block_types"][0] = "AttnDownEncoderBlock2D".into();
    let config: VaeConfig = serde_json::from_value(vae).expect("a configuration");
    assert!(config.validate().is_err());
}

#[test]
fn a_seed_decides_the_initial_weights() {
    let config = ragar::pretraining::vae::tiny_vae();
    let weights = |seed| {
        let vae = config.init::<TestBackend>(&device()).expect("a network");
        let vae = seeded(vae, seed, |path| path.ends_with("conv2.weight"));
        collect::<TestBackend, _>(&vae, Selection::All)
    };
    let first = weights(1);
    assert_eq!(first, weights(1));
    assert_ne!(first, weights(2));
    let still = &first["decoder.mid_block.resnets.0.conv2.weight"];
    assert!(still.iter::<f32>().all(|value| value == 0.0));
}

mod training {
    //! Both trainings: they learn a handful, and a resumed run is the uninterrupted one.

    use std::path::Path;

    use burn::tensor::TensorData;
    use ragar::networks::diffusion::{AutoencoderKl, PerLevel};
    use ragar::networks::recogniser::RecogniserShape;
    use ragar::optimisation::parameters::NamedTensors;
    use ragar::optimisation::{Decay, Interrupt, Schedule, Silent};
    use ragar::pretraining::diffusion::adversary::{Adversary, Contest};
    use ragar::pretraining::diffusion::{
        self, AdversarialConfig, DiffusionPretrainingConfig, PromptedImages,
    };
    use ragar::pretraining::pixels::ImageSet;
    use ragar::pretraining::trainer::TrainerConfig;
    use ragar::pretraining::vae::{self, VaePretrainingConfig};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::support::{StopAfter, devices};

    fn trainer(steps: usize) -> TrainerConfig {
        TrainerConfig {
            steps,
            schedule: Schedule {
                learning_rate: 4e-3,
                decay: Decay::Constant,
                ..Schedule::default()
            },
            average_decay: 0.8,
            log_every: 5,
            evaluate_every: 100,
            checkpoint_every: 100,
            ..TrainerConfig::default()
        }
    }

    /// Discs of different colours and places on white.
    fn discs() -> ImageSet {
        let images = (0..6)
            .map(|i| {
                let (x0, y0) = (5.0 + i as f32, 10.0 - i as f32);
                (0..256)
                    .flat_map(|place| {
                        let (x, y) = ((place % 16) as f32, (place / 16) as f32);
                        let inside = (x - x0).powi(2) + (y - y0).powi(2) < 16.0;
                        let colour = [40 * i as u8, 120, 250 - 40 * i as u8];
                        if inside { colour } else { [255; 3] }
                    })
                    .collect()
            })
            .collect();
        ImageSet::new(16, images).expect("images")
    }

    fn vae_config(steps: usize) -> VaePretrainingConfig {
        let mut network = vae::tiny_vae();
        network.block_out_channels = vec![8, 8, 16];
        network.norm_num_groups = 4;
        VaePretrainingConfig {
            network,
            trainer: trainer(steps),
            batch_size: 3,
            ..VaePretrainingConfig::default()
        }
    }

    fn train_vae(folder: &Path, steps: usize) -> vae::TrainedVae<TestBackend> {
        let devices = devices();
        vae::run::<TestBackend>(
            &vae_config(steps),
            &discs(),
            &discs(),
            folder,
            &devices.train,
            &devices.frozen,
            &Silent,
            &Interrupt::default(),
        )
        .expect("a trained autoencoder")
    }

    #[test]
    fn the_autoencoder_learns_a_handful() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = train_vae(folder.path(), 1).report;
        let trained = train_vae(folder.path(), 60);
        let gain = trained.report.held_out_psnr - first.held_out_psnr;
        assert!(gain > 6.0, "{first:?} {:?}", trained.report);
        assert_eq!(trained.report.steps, 60);
        assert!(folder.path().join("samples/step-60.png").is_file());
        let scaled = discs().batch::<TestBackend>(&[0, 1, 2, 3, 4, 5], &device());
        let latents = trained.network.scale(trained.network.encode(scaled).mean);
        let deviation = latents.reshape([-1]).var(0).sqrt().into_scalar();
        assert!((deviation - 1.0).abs() < 0.01, "{deviation}");
    }

    #[test]
    fn a_resumed_autoencoder_run_is_the_uninterrupted_one() {
        let (whole, parts) = (
            tempfile::tempdir().expect("a"),
            tempfile::tempdir().expect("b"),
        );
        let expected = train_vae(whole.path(), 6);
        train_vae(parts.path(), 3);
        let resumed = train_vae(parts.path(), 6);
        assert_eq!(
            collect::<TestBackend, _>(&expected.network, Selection::All),
            collect::<TestBackend, _>(&resumed.network, Selection::All)
        );
        let log = |folder: &Path| {
            let text = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("a log");
            text.lines()
                .map(|line| {
                    serde_json::from_str::<serde_json::Value>(line).expect("json")["step"].clone()
                })
                .filter(|step| step == 5)
                .count()
        };
        assert_eq!(log(whole.path()), log(parts.path()));
    }

    fn unet_config(steps: usize) -> DiffusionPretrainingConfig {
        let mut network = diffusion::tiny_unet();
        network.block_out_channels = vec![16, 16, 16];
        network.norm_num_groups = 4;
        network.attention_head_dim = PerLevel::All(2);
        network.cross_attention_dim = 8;
        DiffusionPretrainingConfig {
            network,
            trainer: trainer(steps),
            batch_size: 6,
            num_samples: 2,
            // Whatever is drawn at random must be drawn again the same after a resume.
            timestep_power: 1.5,
            views: 2,
            ..DiffusionPretrainingConfig::default()
        }
    }

    /// Half of them in one style, two of each glyph.
    fn prompted() -> PromptedImages {
        let images = discs();
        PromptedImages {
            prompts: (0..images.len())
                .map(|i| vec![format!("disc {i}"), format!("{i}")])
                .collect(),
            styles: (0..images.len()).map(|i| format!("{}", i % 2)).collect(),
            glyphs: (0..images.len()).map(|i| format!("{}", i / 2)).collect(),
            images,
            num_extra: 0,
        }
    }

    fn train_unet(
        folder: &Path,
        vae: &AutoencoderKl<TestBackend>,
        config: &DiffusionPretrainingConfig,
    ) -> diffusion::TrainedUNet<TestBackend> {
        train_unet_until(folder, vae, config, usize::MAX)
    }

    /// As if interrupted after `stop` steps, each of which `config` logs.
    fn train_unet_until(
        folder: &Path,
        vae: &AutoencoderKl<TestBackend>,
        config: &DiffusionPretrainingConfig,
        stop: usize,
    ) -> diffusion::TrainedUNet<TestBackend> {
        let interrupt = Interrupt::default();
        let devices = devices();
        let data = prompted();
        // One number a prompt, spread over two tokens.
        let text = |prompts: &[String]| {
            let values: Vec<f32> = prompts
                .iter()
                .flat_map(|prompt| {
                    let key = prompt.bytes().last().map_or(0.0, f32::from);
                    (0..16).map(move |i| (key * (i + 1) as f32).sin())
                })
                .collect();
            let shape = [prompts.len(), 2, 8];
            Tensor::<TestBackend, 3>::from_data(TensorData::new(values, shape), &device())
        };
        diffusion::run::<TestBackend>(
            config,
            &data,
            &data,
            None,
            vae,
            &text,
            folder,
            &devices.train,
            &devices.frozen,
            &StopAfter(stop, &interrupt),
            &interrupt,
        )
        .expect("a trained network")
    }

    #[test]
    fn the_denoising_network_learns_and_resumes() {
        let vae = vae_config(1)
            .network
            .init(&device())
            .expect("an autoencoder");
        let (whole, parts) = (
            tempfile::tempdir().expect("a"),
            tempfile::tempdir().expect("b"),
        );
        let first = train_unet(parts.path(), &vae, &unet_config(1)).report;
        let expected = train_unet(whole.path(), &vae, &unet_config(30));
        let resumed = train_unet(parts.path(), &vae, &unet_config(30));
        assert_eq!(
            collect::<TestBackend, _>(&expected.network, Selection::All),
            collect::<TestBackend, _>(&resumed.network, Selection::All)
        );
        assert!(
            expected.report.held_out_loss < 0.8 * first.held_out_loss,
            "{first:?} {:?}",
            expected.report
        );
        assert!(whole.path().join("samples/step-30.png").is_file());
    }

    fn against_recognisers(steps: usize) -> DiffusionPretrainingConfig {
        let shape = RecogniserShape {
            stem_width: 8,
            stem_kernel: 3,
            stem_stride: 1,
            widths: vec![8],
            norm_num_groups: 4,
        };
        let mut config = unet_config(steps);
        config.trainer.log_every = 1;
        config.adversarial = AdversarialConfig {
            share: 0.5,
            num_real: 6,
            warmup_steps: 12,
            style: shape.clone(),
            glyph: shape,
            ..AdversarialConfig::default()
        };
        config
    }

    #[test]
    fn recognisers_learn_first_alone_and_then_beside_the_network() {
        let vae = vae_config(1)
            .network
            .init(&device())
            .expect("an autoencoder");
        let folders = [(); 4].map(|()| tempfile::tempdir().expect("a folder"));
        let [whole, parts, alone, start] = folders.each_ref().map(|folder| folder.path());
        let until = |folder, stop| {
            let found = train_unet_until(folder, &vae, &against_recognisers(16), stop);
            collect::<TestBackend, _>(&found.network, Selection::All)
        };
        let expected = until(whole, 16);
        until(parts, 14);
        assert_eq!(until(parts, 16), expected, "resumed");
        // The moving average of a number that stays is that number but for its last digits.
        let (first, last) = (until(start, 1), until(alone, 12));
        let apart = |other: &NamedTensors| {
            let values = first.iter().flat_map(|(name, values)| {
                let other = other[name].iter::<f32>().collect::<Vec<f32>>();
                values.iter::<f32>().zip(other).collect::<Vec<_>>()
            });
            values.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(apart(&last) < 1e-6, "{}", apart(&last));
        assert!(apart(&expected) > 1e-3, "{}", apart(&expected));

        let text = std::fs::read_to_string(whole.join("metrics.jsonl")).expect("a log");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("json"))
            .filter(|line: &serde_json::Value| line.get("loss").is_some())
            .collect();
        let value = |step: usize, key: &str| lines[step - 1][key].as_f64();
        assert!(value(12, "loss") < value(1, "loss"), "{text}");
        assert_eq!(value(12, "style"), None);
        let parts = ["squared_error", "style", "glyph", "recognisers"];
        let sum: f64 = parts
            .map(|key| value(13, key).expect("a part"))
            .iter()
            .sum();
        let loss = value(13, "loss").expect("a loss");
        assert!((sum - loss).abs() < 1e-4 * loss, "{sum} {loss}");
    }

    #[test]
    fn verdicts_teach_what_is_judged_and_lessons_who_judges() {
        let train = devices().train;
        let config = against_recognisers(1).adversarial;
        let adversary = Adversary::new(&config, &prompted());
        let network = unet_config(1).network.init(&train).expect("a network");
        let contest = Contest {
            network,
            recognisers: adversary.recognisers(4, 1, &train),
        };
        let random = |seed| {
            let values = (0..4 * 4 * 16).map(|i| ((i * i + seed) as f32).sin());
            let values = TensorData::new(values.collect::<Vec<f32>>(), [4, 4, 4, 4]);
            Tensor::<TestBackend, 4>::from_data(values, &train)
        };
        let mut stream = ChaCha8Rng::seed_from_u64(1);
        let head = |contest: &Contest<TestBackend>| contest.recognisers[0].head.weight.val();

        let made = random(1).require_grad();
        let verdicts = adversary.verdicts(&contest, &made, &[0, 1, 2, 9], &mut stream);
        let words: Vec<&str> = verdicts.iter().map(|(word, _)| *word).collect();
        assert_eq!(words, ["style", "glyph"]);
        let sum = verdicts.into_iter().map(|(_, loss)| loss);
        let gradients = sum.reduce(|sum, loss| sum + loss).expect("two").backward();
        assert!(made.grad(&gradients).is_some());
        assert!(head(&contest).grad(&gradients).is_none());

        let made = random(1).require_grad();
        let real = random(2);
        let loss = adversary.lesson(&contest, real, &[0, 1, 2, 3], Some(&made), &mut stream);
        let gradients = loss.backward();
        assert!(made.grad(&gradients).is_none());
        assert!(head(&contest).grad(&gradients).is_some());
    }

    #[test]
    fn network_and_recognisers_learn_each_at_its_own_rate() {
        let vae = vae_config(1)
            .network
            .init(&device())
            .expect("an autoencoder");
        let mut config = against_recognisers(13);
        config.trainer.average_decay = 0.0;
        config.trainer.schedule.learning_rate = 1e-3;
        config.adversarial.schedule.learning_rate = 1e-5;
        let folder = tempfile::tempdir().expect("a folder");
        let until = |stop| {
            let found = train_unet_until(folder.path(), &vae, &config, stop);
            let values = collect::<TestBackend, _>(&found.network, Selection::All);
            let values = values.values().flat_map(|tensor| tensor.iter::<f32>());
            values.collect::<Vec<f32>>()
        };
        let (before, after) = (until(12), until(13));
        // Behind twelve steps of the recognisers alone it is still the network's first, by which Adam moves a weight by the rate itself and no further.
        let moved = before.iter().zip(&after).map(|(a, b)| (a - b).abs());
        let furthest = moved.fold(0.0, f32::max);
        assert!((0.95e-3..1.01e-3).contains(&furthest), "{furthest}");
        let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("a log");
        let rates: Vec<f64> = text
            .lines()
            .filter_map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).expect("json");
                line["learning_rate"].as_f64()
            })
            .collect();
        assert_eq!(rates[..12], [1e-5; 12]);
        assert_eq!(rates[12..], [1e-3]);
    }

    #[test]
    fn recognisers_that_cannot_be_are_refused() {
        let refused = |change: &dyn Fn(&mut DiffusionPretrainingConfig), key: &str| {
            let mut config = against_recognisers(16);
            change(&mut config);
            let error = config.validate().expect_err("must be refused").to_string();
            assert!(error.contains(key), "{error}");
        };
        refused(&|c| c.adversarial.share = 1.5, "adversarial.share");
        refused(
            &|c| c.adversarial.style_weight = -1.0,
            "adversarial.style_weight",
        );
        refused(&|c| c.trainer.steps = 12, "adversarial.warmup_steps");
        refused(&|c| c.adversarial.num_real = 0, "adversarial.num_real");
        refused(&|c| c.little_noise.share = 0.5, "little_noise.share");
        against_recognisers(16).validate().expect("as it is");
    }

    #[test]
    fn data_that_cannot_be_trained_on_is_refused() {
        let error = ImageSet::new(16, vec![vec![0; 5]]).expect_err("five bytes");
        assert!(error.to_string().contains("768"), "{error}");
        let devices = devices();
        let folder = tempfile::tempdir().expect("a folder");
        let config = VaePretrainingConfig {
            batch_size: 16,
            ..vae_config(1)
        };
        let error = vae::run::<TestBackend>(
            &config,
            &discs(),
            &discs(),
            folder.path(),
            &devices.train,
            &devices.frozen,
            &Silent,
            &Interrupt::default(),
        )
        .expect_err("six images for sixteen");
        assert!(error.to_string().contains("batches of 16"), "{error}");
        let unknown = serde_json::from_str::<VaePretrainingConfig>(r#"{"batchsize": 3}"#);
        assert!(unknown.is_err());
        for (key, config) in [
            (
                "timestep_power",
                DiffusionPretrainingConfig {
                    timestep_power: 0.0,
                    ..unet_config(1)
                },
            ),
            (
                "views",
                DiffusionPretrainingConfig {
                    views: 0,
                    ..unet_config(1)
                },
            ),
        ] {
            let error = config.validate().expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn augmentation_keeps_white_paper_white() {
        let white = ImageSet::new(16, vec![vec![255; 768]]).expect("an image");
        let mut random = rand::SeedableRng::seed_from_u64(3);
        let random: &mut rand_chacha::ChaCha8Rng = &mut random;
        for _ in 0..20 {
            let batch =
                white.random_batch::<TestBackend>(&[0], &Default::default(), random, &device());
            assert_eq!(batch.min().into_scalar(), 1.0);
        }
    }
}
