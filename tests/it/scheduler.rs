//! Noise schedules and samplers against diffusers, and what must hold whatever the schedule.

use burn::tensor::{Tensor, TensorData};
use ragar::networks::scheduler::{
    BetaSchedule, Ddim, NoiseSchedule, PredictionType, Sampler, SchedulerChoice, SchedulerClass,
    SchedulerConfig, TimestepSpacing,
};
use ragar::pretrained::diffusion::open_scheduler;

use crate::support::{Golden, TestBackend, compare, device, golden_dir};

/// Every recorded sampler.
const CASES: [&str; 16] = [
    "scheduler-ddim",
    "scheduler-ddim-zero-snr",
    "scheduler-pndm",
    "scheduler-pndm-runge-kutta",
    "scheduler-dpm-solver",
    "scheduler-dpm-solver-karras",
    "scheduler-dpm-solver-cosine",
    "scheduler-dpm-solver-zero-snr",
    "scheduler-euler",
    "scheduler-euler-karras",
    "scheduler-euler-zero-snr",
    "scheduler-unipc",
    "scheduler-unipc-bh1",
    "scheduler-unipc-karras",
    "scheduler-lcm",
    "scheduler-lcm-clipped",
];

fn config_of(case: &str) -> SchedulerConfig {
    open_scheduler(&golden_dir(case).join("model")).expect(case)
}

fn shipped() -> SchedulerConfig {
    config_of("scheduler-ddim")
}

fn sampler_of(golden: &Golden, config: &SchedulerConfig) -> Box<dyn Sampler<TestBackend>> {
    let steps = golden.metadata("num_inference_steps").expect("steps");
    config
        .sampler(steps.parse().expect("a number"))
        .expect("a sampler")
}

fn row(values: &Tensor<TestBackend, 5>, index: usize) -> Tensor<TestBackend, 4> {
    values.clone().narrow(0, index, 1).squeeze_dim::<4>(0)
}

/// Scaled input and sample of every call on the recorded outputs, each from the sample before: errors add up.
fn run(golden: &Golden, config: &SchedulerConfig) -> Vec<[TensorData; 2]> {
    let mut sampler = sampler_of(golden, config);
    let outputs = golden.float::<5>("input.model_outputs");
    let [calls, ..] = outputs.dims();
    assert_eq!(sampler.timesteps().len(), calls);
    let noise = |index: usize| row(&golden.float::<5>("input.noise"), index);
    let mut sample = golden.float::<4>("input.sample");
    (0..calls)
        .map(|index| {
            let input = sampler.scale_input(sample.clone(), index);
            sample = sampler.step(row(&outputs, index), index, sample.clone(), &noise);
            [input.into_data(), sample.to_data()]
        })
        .collect()
}

#[test]
fn every_sampler_matches_the_reference_at_every_step() {
    for case in CASES {
        let (golden, config) = (Golden::open(case), config_of(case));
        let sampler = sampler_of(&golden, &config);
        assert_eq!(
            golden.metadata("scheduler").as_deref(),
            Some(config.class.name())
        );
        let timesteps: Vec<f32> = sampler.timesteps().iter().map(|&t| t as f32).collect();
        let count = timesteps.len();
        let expected: Vec<f32> = golden.data("output.timesteps").iter::<f32>().collect();
        compare(
            &format!("{case}: timesteps"),
            &TensorData::new(expected, [count]),
            &TensorData::new(timesteps, [count]),
            1e-3,
            0.0,
        );
        let scale: f64 = golden
            .metadata("init_noise_sigma")
            .expect("a scale")
            .parse()
            .expect("a number");
        let found = sampler.initial_scale();
        assert!(
            (found / scale - 1.0).abs() < 1e-5,
            "{case}: {found} is not {scale}"
        );
        let inputs = golden.float::<5>("output.scaled_inputs");
        let samples = golden.float::<5>("output.samples");
        for (index, found) in run(&golden, &config).iter().enumerate() {
            for (what, expected, found) in [
                ("input", &inputs, &found[0]),
                ("sample", &samples, &found[1]),
            ] {
                compare(
                    &format!("{case}: {what} {index}"),
                    &row(expected, index).into_data(),
                    found,
                    1e-5,
                    1e-4,
                );
            }
        }
    }
}

/// Samplers that begin with a picture under noise.
const PARTWAY: [&str; 7] = [
    "ddim",
    "dpm-solver",
    "dpm-solver-karras",
    "euler",
    "euler-karras",
    "unipc",
    "unipc-karras",
];

/// Largest difference from the reference of any sample on the way that begins at call `first`.
fn partway(case: &str, config: &SchedulerConfig, later: usize) -> f32 {
    let expected = Golden::open("scheduler-partway");
    let golden = Golden::open(&format!("scheduler-{case}"));
    let mut sampler = sampler_of(&golden, config);
    let outputs = golden.float::<5>("input.model_outputs");
    let samples = expected.float::<5>(&format!("{case}.samples"));
    let pictures = expected.float::<4>(&format!("{case}.pictures"));
    let calls = sampler.timesteps().len();
    let first = calls + 1 - samples.dims()[0];
    let noise = golden.float::<4>("input.sample");
    let mut sample = sampler
        .noised(pictures, noise.clone(), first + later)
        .expect("a sample partway");
    let mut worst = 0.0f32;
    for index in first..=calls {
        let wanted = row(&samples, index - first);
        let distance = (sample.clone() - wanted).abs().max().into_scalar();
        worst = worst.max(distance);
        if index < calls {
            let unused = |_: usize| noise.clone();
            sample = sampler.step(row(&outputs, index), index, sample, &unused);
        }
    }
    worst
}

#[test]
fn a_picture_under_noise_goes_on_as_in_the_reference() {
    for case in PARTWAY {
        let config = config_of(&format!("scheduler-{case}"));
        let distance = partway(case, &config, 0);
        assert!(distance < 1e-4, "{case}: {distance}");
        // The noise of the next call is not that of this one.
        assert!(partway(case, &config, 1) > 1e-2, "{case}");
    }
    for case in ["scheduler-pndm", "scheduler-lcm"] {
        let golden = Golden::open(case);
        let sampler = sampler_of(&golden, &config_of(case));
        let noise = golden.float::<4>("input.sample");
        assert!(sampler.noised(noise.clone(), noise, 1).is_none(), "{case}");
    }
}

/// Noise levels wrong by a few per cent are noticed, whatever the sampler.
#[test]
fn another_schedule_does_not_match_the_reference() {
    for case in CASES {
        let (golden, config) = (Golden::open(case), config_of(case));
        let wrong = match config.beta_schedule {
            BetaSchedule::SquaredCosine => SchedulerConfig {
                beta_schedule: BetaSchedule::ScaledLinear,
                ..config
            },
            _ => SchedulerConfig {
                beta_end: config.beta_end * 1.03,
                ..config
            },
        };
        let samples = golden.float::<5>("output.samples");
        let beyond = run(&golden, &wrong)
            .iter()
            .enumerate()
            .any(|(index, found)| {
                let expected: Vec<f32> = row(&samples, index).into_data().iter::<f32>().collect();
                let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
                let differences = expected.iter().zip(found[1].iter::<f32>());
                let worst = differences.fold(0f32, |m, (e, f)| m.max((e - f).abs()));
                worst > 10.0 * (1e-5 + 1e-4 * largest)
            });
        assert!(beyond, "{case}: a wrong schedule went unnoticed");
    }
}

/// A choice takes the pipeline's betas, prediction and spacing, and only the sampler is another.
#[test]
fn a_chosen_sampler_is_built_from_the_same_betas() {
    let own = config_of("scheduler-ddim-zero-snr");
    assert_eq!(SchedulerChoice::Pipeline.over(&own), own);
    for (word, class, karras) in [
        ("ddim", SchedulerClass::Ddim, false),
        ("pndm", SchedulerClass::Pndm, false),
        ("dpm-solver++", SchedulerClass::DpmSolver, false),
        ("dpm-solver++-karras", SchedulerClass::DpmSolver, true),
        ("euler", SchedulerClass::Euler, false),
        ("euler-karras", SchedulerClass::Euler, true),
        ("unipc", SchedulerClass::UniPc, false),
        ("lcm", SchedulerClass::Lcm, false),
    ] {
        let choice: SchedulerChoice =
            serde_json::from_value(serde_json::json!(word)).expect("a known word");
        let chosen = choice.over(&own);
        assert_eq!((chosen.class, chosen.use_karras_sigmas), (class, karras));
        assert_eq!(chosen.timestep_spacing, TimestepSpacing::Trailing);
        let [ours, theirs] = [&own, &chosen].map(|config| {
            let schedule = NoiseSchedule::new(config).expect("a schedule");
            (0..1000)
                .map(|t| schedule.alpha_cumprod(t))
                .collect::<Vec<_>>()
        });
        assert_eq!(ours, theirs, "{word}");
        let sampler = chosen.sampler::<TestBackend>(5).expect("a sampler");
        assert_eq!(
            sampler.timesteps().len(),
            if word == "pndm" { 6 } else { 5 }
        );
    }
    assert!(serde_json::from_str::<SchedulerChoice>("\"heun\"").is_err());
}

/// Absent keys are the class's defaults, null is absent, unknown ones pass; what is saved loads again.
#[test]
fn configurations_follow_the_class_they_name() {
    let read = |text: &str| serde_json::from_str::<SchedulerConfig>(text);
    let euler = read(r#"{"_class_name": "EulerDiscreteScheduler", "sigma_max": null, "new": 3}"#);
    let euler = euler.expect("a scheduler");
    assert_eq!(euler, SchedulerConfig::of(SchedulerClass::Euler));
    assert_eq!(euler.timestep_spacing, TimestepSpacing::Linspace);
    let lcm = read(r#"{"_class_name": "LCMScheduler"}"#).expect("a scheduler");
    assert_eq!(lcm.beta_schedule, BetaSchedule::ScaledLinear);
    let ddpm = read(r#"{"_class_name": "DDPMScheduler"}"#).expect("a scheduler");
    assert_eq!(ddpm.class, SchedulerClass::Ddim);
    let unknown = read(r#"{"_class_name": "HeunDiscreteScheduler"}"#).unwrap_err();
    for class in SchedulerClass::ALL {
        assert!(unknown.to_string().contains(class.name()), "{unknown}");
    }
    for case in CASES {
        let config = config_of(case);
        let saved = serde_json::to_string(&config).expect("JSON");
        assert_eq!(
            read(&saved).expect("a scheduler"),
            config,
            "{case}: {saved}"
        );
    }
}

/// diffusers 0.42.1 `DDIMScheduler(...).alphas_cumprod` at steps 0, 250, 500, 750, 999.
#[test]
fn schedules_match_recorded_values() {
    let places = [0, 250, 500, 750, 999];
    let cases = [
        (BetaSchedule::Linear, false, RECORDED[0]),
        (BetaSchedule::ScaledLinear, false, RECORDED[1]),
        (BetaSchedule::SquaredCosine, false, RECORDED[2]),
        (BetaSchedule::ScaledLinear, true, RECORDED[3]),
    ];
    for (beta_schedule, rescale_betas_zero_snr, expected) in cases {
        let config = SchedulerConfig {
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule,
            rescale_betas_zero_snr,
            prediction_type: PredictionType::VPrediction,
            ..SchedulerConfig::default()
        };
        let schedule = NoiseSchedule::new(&config).expect("a schedule");
        for (place, expected) in places.into_iter().zip(expected) {
            let found = schedule.alpha_cumprod(place);
            assert!(
                (found - expected).abs() < 1e-6 + 1e-5 * expected,
                "{beta_schedule:?} {place}: {found} is not {expected}"
            );
        }
    }
}

/// diffusers' timesteps for 7 steps.
#[test]
fn every_spacing_matches_recorded_steps() {
    let cases = [
        (TimestepSpacing::Leading, SPACINGS[0]),
        (TimestepSpacing::Trailing, SPACINGS[1]),
        (TimestepSpacing::Linspace, SPACINGS[2]),
    ];
    for (timestep_spacing, expected) in cases {
        let config = SchedulerConfig {
            timestep_spacing,
            ..shipped()
        };
        let sampler = config.sampler::<TestBackend>(7).expect("a sampler");
        assert_eq!(
            sampler.timesteps(),
            expected.map(f64::from),
            "{timestep_spacing:?}"
        );
    }
}

/// With a perfect prediction of any kind, the steps from noise to the end return the clean sample, whatever the sampler.
#[test]
fn a_perfect_prediction_leads_back_to_the_sample() {
    let values = |scale: f32| {
        let host: Vec<f32> = (0..64).map(|i| (i as f32 * scale).sin()).collect();
        Tensor::<TestBackend, 1>::from_floats(host.as_slice(), &device()).reshape([1, 4, 4, 4])
    };
    let (clean, noise) = (values(0.7), values(1.3));
    for class in SchedulerClass::ALL {
        for prediction_type in [
            PredictionType::Epsilon,
            PredictionType::VPrediction,
            PredictionType::Sample,
        ] {
            // PNDM mixes outputs of several steps as they are, which is exact for the noise only.
            if class == SchedulerClass::Pndm && prediction_type != PredictionType::Epsilon {
                continue;
            }
            let config = SchedulerConfig {
                prediction_type,
                set_alpha_to_one: true,
                clip_sample: false,
                beta_schedule: BetaSchedule::ScaledLinear,
                timestep_spacing: TimestepSpacing::Trailing,
                skip_prk_steps: true,
                ..SchedulerConfig::of(class)
            };
            let schedule = NoiseSchedule::new(&config).expect("a schedule");
            let mut sampler = config.sampler::<TestBackend>(5).expect("a sampler");
            let steps: Vec<usize> = sampler.timesteps().iter().map(|&t| t as usize).collect();
            let mut sample = schedule.add_noise(clean.clone(), noise.clone(), &steps[..1]);
            if class == SchedulerClass::Euler {
                sample = sample.div_scalar(schedule.alpha_cumprod(steps[0]).sqrt());
            }
            for (index, &t) in steps.iter().enumerate() {
                let target = schedule.target(clean.clone(), noise.clone(), &[t]);
                sample = sampler.step(target, index, sample, &|_| noise.clone());
            }
            compare(
                &format!("{class:?} {prediction_type:?}"),
                &clean.clone().into_data(),
                &sample.into_data(),
                2e-4,
                2e-4,
            );
        }
    }
}

#[test]
fn a_perfect_output_means_the_clean_sample_in_every_row() {
    let values = |scale: f32| {
        let host: Vec<f32> = (0..96).map(|i| (i as f32 * scale).sin()).collect();
        Tensor::<TestBackend, 1>::from_floats(host.as_slice(), &device()).reshape([3, 2, 4, 4])
    };
    let (clean, noise, timesteps) = (values(0.7), values(1.3), [20, 500, 850]);
    for prediction_type in [
        PredictionType::Epsilon,
        PredictionType::VPrediction,
        PredictionType::Sample,
    ] {
        let config = SchedulerConfig {
            prediction_type,
            ..SchedulerConfig::default()
        };
        let schedule = NoiseSchedule::new(&config).expect("a schedule");
        let noised = schedule.add_noise(clean.clone(), noise.clone(), &timesteps);
        let output = schedule.target(clean.clone(), noise.clone(), &timesteps);
        let meant = schedule.clean(noised, output, &timesteps);
        let name = format!("{prediction_type:?}");
        let (expected, meant) = (clean.clone().into_data(), meant.into_data());
        compare(&name, &expected, &meant, 2e-4, 2e-4);
    }
}

#[test]
fn unusable_settings_are_refused_with_a_sentence() {
    let error = Ddim::new(&shipped(), 0).unwrap_err().to_string();
    assert!(error.contains("between 1 and 1000"), "{error}");
    let thresholding = SchedulerConfig {
        thresholding: true,
        ..shipped()
    };
    let error = NoiseSchedule::new(&thresholding).unwrap_err().to_string();
    assert!(error.contains("thresholding"), "{error}");
    let of = |text: &str, steps: usize| {
        let config: SchedulerConfig = serde_json::from_str(text).expect("a scheduler");
        match config.sampler::<TestBackend>(steps) {
            Ok(_) => panic!("{text} was accepted"),
            Err(error) => error.to_string(),
        }
    };
    for (class, key, value) in [
        (SchedulerClass::Pndm, "prediction_type", "\"sample\""),
        (
            SchedulerClass::DpmSolver,
            "algorithm_type",
            "\"sde-dpmsolver++\"",
        ),
        (SchedulerClass::DpmSolver, "use_lu_lambdas", "true"),
        (SchedulerClass::DpmSolver, "solver_order", "4"),
        (SchedulerClass::Euler, "timestep_type", "\"continuous\""),
        (SchedulerClass::Euler, "use_beta_sigmas", "true"),
        (SchedulerClass::UniPc, "predict_x0", "false"),
        (SchedulerClass::UniPc, "solver_type", "\"bh3\""),
        (SchedulerClass::Lcm, "original_inference_steps", "0"),
    ] {
        let name = class.name();
        let error = of(
            &format!("{{\"_class_name\": \"{name}\", \"{key}\": {value}}}"),
            4,
        );
        assert!(error.contains(key), "{name}: {error}");
    }
    let error = of(r#"{"_class_name": "LCMScheduler"}"#, 51);
    assert!(error.contains("between 1 and 50"), "{error}");
    let error = of(r#"{"_class_name": "PNDMScheduler"}"#, 3);
    assert!(error.contains("between 4 and 1000"), "{error}");
    // Pure noise says nothing about the sample if only the noise is predicted.
    let blind = r#"{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}"#;
    let error = of(blind, 4);
    assert!(error.contains("prediction_type"), "{error}");
}

const RECORDED: [[f64; 5]; 4] = [
    [
        0.999149978,
        0.568788052,
        0.160771623,
        0.0225192253,
        0.00157896278,
    ],
    [
        0.999149978,
        0.673792303,
        0.276332468,
        0.0561698042,
        0.00466009509,
    ],
    [
        0.999958694,
        0.845888019,
        0.492285043,
        0.143178657,
        2.42873499e-09,
    ],
    [0.999149978, 0.65245676, 0.241018638, 0.03279908, 0.0],
];

const SPACINGS: [[u32; 7]; 3] = [
    [853, 711, 569, 427, 285, 143, 1],
    [999, 856, 713, 570, 428, 285, 142],
    [999, 832, 666, 500, 333, 166, 0],
];
