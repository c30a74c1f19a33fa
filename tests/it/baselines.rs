//! The compared methods over small random networks: what they train, what they leave alone, and how they resume.

use std::path::Path;

use burn::module::{Module as _, Param};
use burn::tensor::{Device, Tensor, TensorData};
use image::{Rgb, RgbImage};
use ragar::baselines::denoising::{Denoiser, Latents, Noising, stream};
use ragar::baselines::fitting::FittingConfig;
use ragar::baselines::floors::{Choice, Floor, neighbour};
use ragar::baselines::pmg::SoftPreference;
use ragar::baselines::stable_diffusion::{StableDiffusion, Words};
use ragar::baselines::textual_inversion::{
    InvertedEncoder, TextualInversion, TextualInversionConfig,
};
use ragar::baselines::{DrawError, Method, MethodError, Request, Studio, Watch};
use ragar::data::history::History;
use ragar::data::image::ImageError;
use ragar::data::item::{Catalogue, Item};
use ragar::generation::choice::{self, Chooser};
use ragar::generation::conditioning::ClipTextEncoder;
use ragar::generation::drawing::Drawing;
use ragar::generation::generator::{GenerateOptions, Generator};
use ragar::generation::sample::Sample;
use ragar::networks::llama::KeyValueCache;
use ragar::networks::scheduler::SchedulerChoice;
use ragar::optimisation::{AdamWConfig, Interrupt, Progress, Schedule, Silent};
use ragar::pretrained::diffusion::PretrainedDiffusion;
use ragar::pretrained::textual_inversion::LearnedToken;
use ragar::pretrained::{clip, diffusion, llama};
use ragar::text::TextTokenizer;

use crate::support::{
    Golden, StopAfter, TestBackend, compare, device, devices, differs, golden_dir,
};

const TOKENS: usize = 16;

fn pipeline(device: &Device<TestBackend>) -> PretrainedDiffusion<TestBackend> {
    diffusion::open(&golden_dir("pipeline").join("model"), device).unwrap()
}

#[test]
fn a_prefix_in_front_of_every_layer_matches_transformers() {
    let golden = Golden::open("llama-prefix");
    let folder = golden_dir("llama-mha").join("model");
    let model = llama::load::<TestBackend>(&folder, &device())
        .unwrap()
        .model;
    let states = |keys: Tensor<TestBackend, 4>| {
        let values: Tensor<TestBackend, 4> = golden.float("input.values");
        let [layers, heads, length, width] = keys.dims();
        assert_eq!(model.key_value_shape(), [layers, heads, width]);
        let layer = |all: &Tensor<TestBackend, 4>, at: usize| {
            all.clone()
                .narrow(0, at, 1)
                .expand([2, heads, length, width])
        };
        let pairs = (0..layers).map(|at| (layer(&keys, at), layer(&values, at)));
        let mut cache = KeyValueCache::starting_with(pairs.collect());
        let mask = Tensor::cat(
            vec![
                Tensor::ones([2, length], &device()),
                golden.int::<2>("input.attention_mask"),
            ],
            1,
        );
        let embedded = model.embed(golden.int("input.input_ids"));
        let states = model.forward_cached(embedded, Some(mask), &mut cache);
        // Where a row has padding, nothing is said.
        states.narrow(1, 2, 4)
    };
    golden.check("output.states", states(golden.float("input.keys")));
    let mut other = golden.data("input.keys");
    other.as_mut_slice::<f32>().unwrap()[5] += 0.3;
    let moved = states(Tensor::from_data(other, &device())).into_data();
    assert!(differs(&golden.data("output.states"), &moved));
}

#[test]
fn a_learned_word_reads_as_if_it_stood_in_the_table() {
    let folder = golden_dir("pipeline").join("model");
    let (mut config, tower) =
        clip::open_text_model::<TestBackend>(&folder.join("text_encoder"), &device()).unwrap();
    let tokenizer = TextTokenizer::open(&folder.join("tokenizer")).unwrap();
    let width = config.hidden_size;
    let values: Vec<f32> = (0..2 * width).map(|i| (i as f32 * 0.7).sin()).collect();
    let learned = LearnedToken {
        token: "<user>".into(),
        vectors: TensorData::new(values.clone(), [2, width]),
    };
    let (whole, known, _) = learned
        .add_to(&mut config, tower.clone(), tokenizer.clone())
        .unwrap();
    let prompt = "<user> <user>_1, a cat".to_string();
    let (ids, _) = known.encode_padded(&[&prompt], TOKENS);
    let ids: Vec<i64> = ids.concat().into_iter().map(i64::from).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [1, TOKENS]), &device());
    let expected = whole.forward(ids).last_hidden_state.into_data();

    let encoder = InvertedEncoder::new(tower, &tokenizer, TOKENS, 2).unwrap();
    let read = |values: Vec<f32>| {
        let vectors = Tensor::from_data(TensorData::new(values, [1, 2, width]), &device());
        encoder
            .states(std::slice::from_ref(&prompt), vectors)
            .into_data()
    };
    compare("states", &expected, &read(values.clone()), 1e-6, 1e-6);
    let mut swapped = values[width..].to_vec();
    swapped.extend_from_slice(&values[..width]);
    assert!(
        differs(&expected, &read(swapped)),
        "vectors have their order"
    );
}

fn colour(number: usize) -> RgbImage {
    RgbImage::from_fn(20, 18, |x, y| {
        Rgb([(number * 60) as u8, (x * 12) as u8, (y * 12) as u8])
    })
}

/// Users, items and a generator too small to draw anything.
struct World {
    diffusion: PretrainedDiffusion<TestBackend>,
    generator: Generator<TestBackend>,
    catalogue: Catalogue,
    words: Vec<String>,
    histories: Vec<History>,
    samples: Vec<Sample>,
    visual: Vec<Vec<f32>>,
    captions: Vec<String>,
}

impl World {
    fn new() -> Self {
        let diffusion = pipeline(&device());
        let generator = Generator::new(
            diffusion.unet.clone(),
            diffusion.vae.clone(),
            diffusion.scheduler.clone(),
        );
        let words = ["a cat", "dogs", "the end", "cats", "a dog"];
        let items = words.iter().enumerate().map(|(number, text)| Item {
            id: format!("item {number}"),
            image: format!("{number}.png").into(),
            text: (*text).into(),
        });
        let catalogue = Catalogue::new(items.collect()).unwrap();
        let history = |user: &str, history: &[usize], reference| History {
            user: user.into(),
            history: history.to_vec(),
            reference,
            target: None,
            split: None,
        };
        let histories = vec![
            history("u", &[0, 1], 2),
            history("v", &[3, 1, 0], 4),
            history("w", &[4], 2),
        ];
        let samples = histories.iter().map(|history| Sample {
            retrieved_captions: Vec::new(),
            reference_caption: String::new(),
            user: history.user.clone(),
            user_index: 0,
            reference: history.reference,
            reference_id: catalogue[history.reference].id.clone(),
            keywords: vec!["cat".into()],
            summary: "cat".into(),
            preference_prompt: String::new(),
            preference_ids: vec![4, 5, 6],
            global_prompt: format!("dogs, {}", words[history.reference]),
            history_prompt: format!("cat, {}", words[history.reference]),
            retrieved: vec![],
            retrieved_preference: vec![],
            reference_semantic: vec![],
            reference_visual: vec![],
        });
        Self {
            samples: samples.collect(),
            diffusion,
            generator,
            histories,
            visual: vec![
                vec![1.0, 0.0],
                vec![0.8, 0.6],
                vec![0.6, 0.8],
                vec![0.0, 1.0],
                vec![-1.0, 0.0],
            ],
            captions: words
                .iter()
                .map(|text| format!("a picture of {text}"))
                .collect(),
            words: words.map(String::from).to_vec(),
            catalogue,
        }
    }

    fn requests(&self) -> Vec<Request<'_>> {
        let pairs = self.histories.iter().zip(&self.samples);
        pairs
            .map(|(history, sample)| Request { history, sample })
            .collect()
    }

    fn with_studio<T>(&self, work: impl FnOnce(&Studio<'_, TestBackend>) -> T) -> T {
        let device = device();
        let encoder = &self.diffusion.text_encoder;
        let text =
            ClipTextEncoder::new(&encoder.network, None, &encoder.tokenizer, TOKENS, &device);
        let options = GenerateOptions {
            num_steps: 2,
            guidance_scale: 2.0,
            scheduler: SchedulerChoice::Pipeline,
            guidance_rescale: 0.0,
            strength: 1.0,
        };
        let held_out = |item: usize| item == 3;
        // Item 4's picture is broken.
        let picture = |item: usize| match item {
            4 => Err(ImageError::Missing {
                path: "4.png".into(),
            }),
            item => Ok(colour(item)),
        };
        work(&Studio {
            drawing: Drawing {
                generator: &self.generator,
                text: &text,
                options: &options,
                references: None,
                latent_shape: [4, 8, 8],
                images_per_batch: 2,
                choice: None,
                seed: 99,
                device: &device,
            },
            identity: "tiny".into(),
            sampler: "two steps".into(),
            catalogue: &self.catalogue,
            words: &self.words,
            captions: &self.captions,
            visual: &self.visual,
            held_out: &held_out,
            picture: &picture,
            side: 8 * self.diffusion.vae_config.downsampling(),
        })
    }
}

#[test]
fn floors_show_pictures_of_the_data_and_fail_user_by_user() {
    let world = World::new();
    world.with_studio(|studio| {
        let draw = |choice, seed| Floor { studio, choice }.draw(&world.requests(), seed);
        let reference = draw(Choice::Reference, 0);
        assert_eq!(reference[0].as_ref().unwrap(), &colour(2));
        assert!(
            matches!(&reference[1], Err(DrawError::Picture(path)) if path.contains("4.png")),
            "{:?}",
            reference[1]
        );
        assert_eq!(reference[2].as_ref().unwrap(), &colour(2), "others go on");
        let history = draw(Choice::History, 0);
        assert!([colour(0), colour(1)].contains(history[0].as_ref().unwrap()));
        assert!(history[2].is_err(), "its only picture is broken");
        assert_eq!(history, draw(Choice::History, 0), "seeded");
        let drawn: Vec<_> = (0..20).map(|seed| draw(Choice::History, seed)).collect();
        assert!(
            drawn.iter().any(|other| other[0] != history[0]),
            "other seeds, other pictures"
        );
    });
    // Between item 2 and its history 0, 1: item 3 is nearest but held out.
    let held_out = |item: usize| item == 3;
    assert_eq!(neighbour(&world.visual, &[0, 1], 2, held_out), Some(4));
    assert_eq!(neighbour(&world.visual, &[0, 1], 2, |_| false), Some(3));
    assert_eq!(neighbour(&world.visual, &[0, 1, 4], 2, held_out), None);
    let none = History {
        history: vec![],
        ..world.histories[0].clone()
    };
    let request = Request {
        history: &none,
        sample: &world.samples[0],
    };
    world.with_studio(|studio| {
        let choice = Choice::History;
        let drawn = Floor { studio, choice }.draw(&[request], 0);
        assert_eq!(drawn, [Err(DrawError::EmptyHistory)]);
    });
}

#[test]
fn a_picture_depends_on_its_own_request_and_seed() {
    let world = World::new();
    world.with_studio(|studio| {
        for words in [Words::Keywords, Words::CaptionAndKeywords] {
            let method = StableDiffusion { studio, words };
            let all = method.draw(&world.requests(), 7);
            let alone = method.draw(&world.requests()[2..], 7);
            assert_eq!(all[2], alone[0], "whoever is drawn beside");
            assert_ne!(
                all[2],
                method.draw(&world.requests(), 8)[2],
                "the seed shows"
            );
            assert!(method.draw(&[], 7).is_empty());
        }
    });
}

/// Keeps the candidate of one place.
struct Keeps(usize);

impl Chooser<TestBackend> for Keeps {
    fn choose(
        &self,
        samples: &[&Sample],
        candidates: usize,
        images: Tensor<TestBackend, 4>,
    ) -> Vec<usize> {
        assert_eq!(images.dims()[0], samples.len() * candidates);
        vec![self.0; samples.len()]
    }
}

#[test]
fn a_choice_keeps_one_of_several_drawings() {
    let world = World::new();
    world.with_studio(|studio| {
        let drawn = |samples: &[&Sample], place: Option<usize>, at_once: usize| {
            let chooser = Keeps(place.unwrap_or(0));
            let drawing = Drawing {
                choice: place.map(|_| choice::Choice {
                    candidates: 3,
                    chooser: &chooser,
                }),
                images_per_batch: at_once,
                ..studio.drawing
            };
            let prompts: Vec<&str> = samples.iter().map(|s| s.global_prompt.as_str()).collect();
            let mut pictures = Vec::new();
            let each = |images| pictures.extend(ragar::data::pixels::to_pictures(images));
            drawing.prompts(samples, &prompts, each).unwrap();
            pictures
        };
        let samples: Vec<&Sample> = world.samples.iter().collect();
        let plain = drawn(&samples, None, 2);
        assert_eq!(
            drawn(&samples, Some(0), 2),
            plain,
            "the first is the drawing that was made without a choice"
        );
        let (second, third) = (drawn(&samples, Some(1), 2), drawn(&samples, Some(2), 2));
        for sample in 0..3 {
            assert_ne!(second[sample], plain[sample], "from a latent of its own");
            assert_ne!(second[sample], third[sample]);
        }
        for at_once in [1, 4, 6, 100] {
            assert_eq!(
                drawn(&samples, Some(1), at_once),
                second,
                "{at_once} at once"
            );
        }
        assert_eq!(drawn(&samples[2..], Some(1), 6), second[2..], "alone");
    });
}

fn inversion(steps: usize) -> TextualInversionConfig {
    TextualInversionConfig {
        num_vectors: 2,
        initial_words: "cat".into(),
        users_per_group: 2,
        training: FittingConfig {
            steps,
            batch_size: 1,
            save_every: 100,
            schedule: Schedule {
                learning_rate: 0.02,
                ..Schedule::default()
            },
            optimizer: AdamWConfig {
                max_gradient_norm: 0.0,
                ..AdamWConfig::default()
            },
            seed: 3,
        },
        ..TextualInversionConfig::default()
    }
}

/// Trains for the first `users` users; vectors by user, and their pictures.
fn inverted(
    world: &World,
    config: &TextualInversionConfig,
    users: usize,
    folder: &Path,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<(Vec<Vec<f32>>, Vec<RgbImage>), MethodError> {
    let devices = devices();
    let trained = pipeline(&devices.train);
    let denoiser =
        Denoiser::<TestBackend>::new(trained.unet.clone(), &trained.scheduler, &devices.train)?;
    world.with_studio(|studio| {
        let encoder = &world.diffusion.text_encoder;
        let mut method = TextualInversion::<TestBackend>::new(
            config,
            studio,
            world.generator.vae(),
            &denoiser,
            (
                trained.text_encoder.network.clone(),
                encoder.network.clone(),
            ),
            &encoder.tokenizer,
            TOKENS,
        )?;
        let requests = &world.requests()[..users];
        let untrained = method.draw(requests, 0);
        assert!(
            untrained
                .iter()
                .all(|drawn| *drawn == Err(DrawError::Untrained))
        );
        let watch = Watch {
            folder,
            interrupt,
            progress,
        };
        method.train(requests, watch)?;
        let drawn = method.draw(requests, 0).into_iter();
        let vectors = requests
            .iter()
            .map(|r| method.vectors()[&r.sample.user].clone());
        Ok((vectors.collect(), drawn.map(Result::unwrap).collect()))
    })
}

#[test]
fn textual_inversion_learns_user_by_user_and_resumes_to_the_same_numbers() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let config = inversion(6);
    let never = Interrupt::default();
    let at = |name: &str| folder.path().join(name);
    let (whole, pictures) = inverted(&world, &config, 2, &at("whole"), &Silent, &never).unwrap();
    assert_ne!(whole[0], whole[1], "each user has a word of its own");
    assert_ne!(pictures[0], pictures[1]);

    let alone = TextualInversionConfig {
        users_per_group: 1,
        ..config.clone()
    };
    let (apart, _) = inverted(&world, &alone, 2, &at("apart"), &Silent, &never).unwrap();
    for (a, b) in whole.concat().iter().zip(apart.concat()) {
        assert!((a - b).abs() < 2e-5, "side by side as alone: {a} {b}");
    }

    let interrupt = Interrupt::default();
    let stop = StopAfter(3, &interrupt);
    let stopped = inverted(&world, &config, 2, &at("parts"), &stop, &interrupt);
    assert!(matches!(stopped, Err(MethodError::Interrupted { step: 3 })));
    let (resumed, _) = inverted(&world, &config, 2, &at("parts"), &Silent, &never).unwrap();
    assert_eq!(resumed, whole);
    // What is finished is opened, not trained again, and another setting is refused.
    let (again, _) = inverted(&world, &config, 2, &at("parts"), &Silent, &never).unwrap();
    assert_eq!(again, whole);
    let other = inverted(&world, &inversion(7), 2, &at("parts"), &Silent, &never);
    assert!(
        other
            .unwrap_err()
            .to_string()
            .contains("another configuration")
    );
    // The third user's only picture is broken: named, not skipped.
    let broken = inverted(&world, &config, 3, &at("whole"), &Silent, &never);
    assert!(broken.unwrap_err().to_string().contains("4.png"));
}

/// Gradients of PMG's parts, and its loss, on one fixed batch.
struct Lesson {
    latents: Latents,
    noising: Noising,
    global: Tensor<TestBackend, 3>,
    denoiser: Denoiser<TestBackend>,
    llama: ragar::networks::llama::LlamaForCausalLm<TestBackend>,
}

impl Lesson {
    fn new(world: &World) -> Self {
        let devices = devices();
        let trained = pipeline(&devices.train);
        let folder = golden_dir("llama-mha").join("model");
        let vae = world.generator.vae();
        let side = 8 * world.diffusion.vae_config.downsampling();
        let latents = Latents::encode(vae, &[colour(0), colour(1)], side, &devices.frozen);
        assert_eq!(latents.shape(), [4, 8, 8]);
        let mut noising = Noising::new();
        let mut random = stream(1, "lesson", "u", 0);
        for _ in 0..2 {
            noising.draw(&mut random, 600, latents.shape());
        }
        let encoder = &world.diffusion.text_encoder;
        Self {
            latents,
            noising,
            global: encoder.states(&["a cat", "dogs"], &devices.frozen),
            denoiser: Denoiser::new(trained.unet, &trained.scheduler, &devices.train).unwrap(),
            llama: llama::load::<TestBackend>(&folder, &devices.train)
                .unwrap()
                .model
                .no_grad(),
        }
    }

    fn loss(&self, model: &SoftPreference<TestBackend>) -> Tensor<TestBackend, 1> {
        let prompts = [vec![4, 5, 6], vec![7]];
        let global = Tensor::from_inner(self.global.clone());
        let states = model.forward(&self.llama, &prompts, global);
        let losses = self
            .denoiser
            .losses(&self.latents, &[0, 1], &self.noising, states);
        losses.mean()
    }
}

#[test]
fn soft_preference_starts_from_the_keywords_and_its_gradient_is_the_slope() {
    let world = World::new();
    let lesson = Lesson::new(&world);
    let width = lesson.global.dims()[2];
    let model = SoftPreference::new(&lesson.llama, 3, 2, width, 1);
    let global: Tensor<TestBackend, 3> = Tensor::from_inner(lesson.global.clone());
    let prompts = [vec![4, 5, 6], vec![7]];
    let states = model.forward(&lesson.llama, &prompts, global.clone());
    assert_eq!(
        states.into_data(),
        global.into_data(),
        "nothing learned, nothing changed"
    );

    // Past the zeros of the projection every part has a gradient.
    let shift = |model: SoftPreference<TestBackend>, by: f32| {
        let mut model = model;
        let weight = model.projection.weight.val();
        let [rows, columns] = weight.dims();
        let values: Vec<f32> = (0..rows * columns)
            .map(|i| (i as f32 * 0.37).sin() * by)
            .collect();
        let values = TensorData::new(values, [rows, columns]);
        let weight = Tensor::from_data(values, &weight.device());
        model.projection.weight = Param::from_tensor(weight);
        model
    };
    let model = shift(model, 0.2);
    let number = |tensor: Tensor<TestBackend, 1>| -> f64 {
        f64::from(tensor.into_data().iter::<f32>().next().unwrap())
    };
    let gradients = lesson.loss(&model).backward();
    let gradient = model.prefix.values.val().grad(&gradients).unwrap();
    let gradient: Vec<f32> = gradient.into_data().iter::<f32>().collect();
    let (place, slope) = gradient
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
        .unwrap();
    assert!(
        slope.abs() > 0.0,
        "the loss reaches the prefix through the language model"
    );
    let moved = |by: f32| {
        let mut other = model.clone();
        let values = other.prefix.values.val();
        let mut data = values.to_data();
        data.as_mut_slice::<f32>().unwrap()[place] += by;
        let device = values.device();
        other.prefix.values = Param::from_tensor(Tensor::from_data(data, &device));
        number(lesson.loss(&other))
    };
    let step = 0.2;
    let found = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
    let error = (found - f64::from(*slope)).abs();
    assert!(
        error < 0.05 * f64::from(slope.abs()) + 1e-5,
        "{found} {slope}"
    );
    // The networks beneath stay as they are.
    let frozen = &lesson.llama.model.embed_tokens.weight.val();
    assert!(frozen.grad(&gradients).is_none());
}

#[test]
fn soft_preference_learns_a_handful() {
    use ragar::baselines::fitting::fit;

    let world = World::new();
    let lesson = Lesson::new(&world);
    let width = lesson.global.dims()[2];
    let fitted = |folder: &Path, steps, progress: &dyn Progress, interrupt: &Interrupt| {
        let config = FittingConfig {
            steps,
            save_every: 100,
            schedule: Schedule {
                learning_rate: 0.02,
                decay: ragar::optimisation::Decay::Constant,
                ..Schedule::default()
            },
            ..FittingConfig::default()
        };
        let model = SoftPreference::new(&lesson.llama, 3, 2, width, 1);
        let before = lesson
            .loss(&model)
            .into_data()
            .iter::<f32>()
            .next()
            .unwrap();
        let watch = Watch {
            folder,
            interrupt,
            progress,
        };
        let model = fit::<TestBackend, _>(
            &config,
            "PMG",
            &"handful",
            model,
            &devices().frozen,
            watch,
            |model: &SoftPreference<TestBackend>, _| lesson.loss(model),
        )?;
        let after = lesson
            .loss(&model)
            .into_data()
            .iter::<f32>()
            .next()
            .unwrap();
        Ok::<_, MethodError>((before, after))
    };
    let folder = tempfile::tempdir().unwrap();
    let never = Interrupt::default();
    let (before, after) = fitted(&folder.path().join("a"), 30, &Silent, &never).unwrap();
    assert!(after < 0.97 * before, "{before} {after}");
    let interrupt = Interrupt::default();
    let parts = folder.path().join("b");
    let stop = StopAfter(11, &interrupt);
    let stopped = fitted(&parts, 30, &stop, &interrupt);
    assert!(matches!(
        stopped,
        Err(MethodError::Interrupted { step: 11 })
    ));
    let (_, resumed) = fitted(&parts, 30, &Silent, &never).unwrap();
    assert_eq!(resumed, after, "resumed is uninterrupted");
    let lines = std::fs::read_to_string(parts.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 30, "a line per step");
}
