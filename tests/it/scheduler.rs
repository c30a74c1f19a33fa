//! Noise schedules and DDIM against diffusers, and what must hold whatever the schedule.

use burn::tensor::Tensor;
use ragar::networks::scheduler::{
    BetaSchedule, Ddim, NoiseSchedule, PredictionType, SchedulerConfig, TimestepSpacing,
};

use crate::support::{Golden, TestBackend, compare, device, golden_dir};

fn shipped() -> SchedulerConfig {
    let path = golden_dir("scheduler-ddim").join("model/scheduler_config.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("a scheduler")
}

#[test]
fn ddim_matches_the_reference_at_every_step() {
    let golden = Golden::open("scheduler-ddim");
    let sampler = Ddim::new(&shipped(), 10).expect("a sampler");
    let expected: Vec<usize> = golden
        .data("output.timesteps")
        .iter::<i64>()
        .map(|t| t as usize)
        .collect();
    assert_eq!(sampler.timesteps(), expected);
    let outputs = golden.float::<5>("input.model_outputs");
    let samples = golden.float::<5>("output.samples");
    let inputs = golden.float::<5>("output.scaled_inputs");
    let mut sample = golden.float::<4>("input.sample");
    for step in 0..10 {
        let row = |t: &Tensor<TestBackend, 5>| t.clone().narrow(0, step, 1).squeeze_dim::<4>(0);
        compare(
            &format!("input {step}"),
            &row(&inputs).into_data(),
            &sample.clone().into_data(),
            1e-5,
            1e-4,
        );
        sample = sampler.step(row(&outputs), step, sample);
        compare(
            &format!("sample {step}"),
            &row(&samples).into_data(),
            &sample.clone().into_data(),
            1e-5,
            1e-4,
        );
    }
}

#[test]
fn another_schedule_does_not_match_the_reference() {
    let golden = Golden::open("scheduler-ddim");
    let linear = SchedulerConfig {
        beta_schedule: BetaSchedule::Linear,
        ..shipped()
    };
    let sampler = Ddim::new(&linear, 10).expect("a sampler");
    let first = |name: &str| golden.float::<5>(name).narrow(0, 0, 1).squeeze_dim::<4>(0);
    let sample = sampler.step(
        first("input.model_outputs"),
        0,
        golden.float::<4>("input.sample"),
    );
    let difference = (sample - first("output.samples")).abs().max();
    assert!(difference.into_scalar() > 1e-2);
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
        let sampler = Ddim::new(&config, 7).expect("a sampler");
        assert_eq!(sampler.timesteps(), expected, "{timestep_spacing:?}");
    }
}

/// With a perfect prediction of any kind, one step from noise to the end returns the clean sample.
#[test]
fn a_perfect_prediction_leads_back_to_the_sample() {
    for prediction_type in [
        PredictionType::Epsilon,
        PredictionType::VPrediction,
        PredictionType::Sample,
    ] {
        let config = SchedulerConfig {
            prediction_type,
            set_alpha_to_one: true,
            clip_sample: false,
            beta_schedule: BetaSchedule::ScaledLinear,
            timestep_spacing: TimestepSpacing::Trailing,
            ..SchedulerConfig::default()
        };
        let schedule = NoiseSchedule::new(&config).expect("a schedule");
        let sampler = Ddim::new(&config, 4).expect("a sampler");
        let values = |scale: f32| {
            let host: Vec<f32> = (0..64).map(|i| (i as f32 * scale).sin()).collect();
            Tensor::<TestBackend, 1>::from_floats(host.as_slice(), &device()).reshape([1, 4, 4, 4])
        };
        let (clean, noise) = (values(0.7), values(1.3));
        let mut sample =
            schedule.add_noise(clean.clone(), noise.clone(), &sampler.timesteps()[..1]);
        for (index, &t) in sampler.timesteps().iter().enumerate() {
            let target = schedule.target(clean.clone(), noise.clone(), &[t]);
            sample = sampler.step(target, index, sample);
        }
        compare(
            &format!("{prediction_type:?}"),
            &clean.into_data(),
            &sample.into_data(),
            1e-4,
            1e-4,
        );
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

const SPACINGS: [[usize; 7]; 3] = [
    [853, 711, 569, 427, 285, 143, 1],
    [999, 856, 713, 570, 428, 285, 142],
    [999, 832, 666, 500, 333, 166, 0],
];
