//! UNet, autoencoder and the whole pipeline against diffusers; what must be refused; what must not depend on luck.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use model_import::SaveDtype;
use ragar::generation::generator::{GenerateOptions, Generator};
use ragar::networks::diffusion::{UNetConfig, VaeConfig};
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
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.current.push(name.to_string());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.current.pop();
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

#[test]
fn unet_matches_the_reference() {
    let golden = Golden::open("unet-sd15");
    let folder = golden_dir("unet-sd15").join("model");
    let (_, unet) = open_unet::<TestBackend>(&folder, &device()).expect("a UNet");
    let run = |unet: &ragar::networks::diffusion::UNet2DConditionModel<TestBackend>| {
        unet.forward(
            golden.float("input.sample"),
            golden.int::<1>("input.timestep").float(),
            golden.float("input.encoder_hidden_states"),
        )
    };
    golden.check("output.sample", run(&unet));
    for path in [
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        "up_blocks.0.resnets.2.conv2.weight",
    ] {
        let nudged = Nudge::at(unet.clone(), path);
        let found = difference(&golden, "output.sample", run(&nudged));
        assert!(found > 1e-3, "{path}: the output moved by {found} only");
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

/// The first SD files name the autoencoder's attention otherwise.
#[test]
fn first_release_names_load_too() {
    let folder = golden_dir("vae").join("model");
    let bytes = std::fs::read(folder.join("diffusion_pytorch_model.safetensors")).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let renamed: Vec<(String, safetensors::tensor::TensorView<'_>)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let name = name
                .replace("attentions.0.to_q", "attentions.0.query")
                .replace("attentions.0.to_k", "attentions.0.key")
                .replace("attentions.0.to_v", "attentions.0.value")
                .replace("attentions.0.to_out.0", "attentions.0.proj_attn");
            (name, view)
        })
        .collect();
    let old = tempfile::tempdir().expect("a folder");
    let bytes = safetensors::serialize(renamed, None).expect("bytes");
    std::fs::write(
        old.path().join("diffusion_pytorch_model.safetensors"),
        bytes,
    )
    .expect("a file");
    std::fs::copy(folder.join("config.json"), old.path().join("config.json")).expect("a copy");
    let golden = Golden::open("vae");
    let (_, vae) = open_vae::<TestBackend>(old.path(), &device()).expect("an autoencoder");
    golden.check(
        "output.latent_mean",
        vae.encode(golden.float("input.image")).mean,
    );
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
    };
    let generator = Generator::new(pipeline.unet, pipeline.vae, pipeline.scheduler);
    let recorded = golden.float::<4>("output.latents_steps");
    let latents = generator
        .denoise(
            states.clone().narrow(0, 1, 1),
            states.clone().narrow(0, 0, 1),
            golden.float("input.latents"),
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
    };
    let row = |i: usize| states.clone().narrow(0, i, 1);
    let together = generator
        .generate(states.clone().narrow(0, 1, 2), row(0), both, &options)
        .expect("two images");
    let apart = generator
        .generate(row(2), row(0), one.mul_scalar(-1.0), &options)
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
        ("mid_block_type", serde_json::Value::Null),
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
