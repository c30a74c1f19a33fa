//! LPIPS against the reference package, over trunks of full width; a real SqueezeNet where its weights are present.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use model_import::{hub_shapes, maps, read_tensors, write_tensors};
use ragar::networks::lpips::{Lpips, LpipsError, Net};
use ragar::pretrained::lpips;

use crate::support::{Golden, TestBackend, compare, device, devices, golden_dir};

const CASES: [(&str, Net); 3] = [
    ("lpips-vgg", Net::Vgg),
    ("lpips-alex", Net::Alex),
    ("lpips-squeeze", Net::Squeeze),
];

/// Uniform in [−1, 1): 24 bits of splitmix64, seeded by the name's FNV-1a; as `tests/golden/lpips_nets.py` draws them.
fn values(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (1..=count as u64)
        .map(|place| {
            let mut state = seed.wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            state ^= state >> 31;
            ((state >> 40) as i64 * 2 - (1 << 24)) as f32 / (1 << 24) as f32
        })
        .collect()
}

pub fn parameter(name: &str, shape: &[usize]) -> TensorData {
    let factor = match shape {
        [_] => 0.125,
        _ => 2f32.powi(1 - (shape[1..].iter().product::<usize>().ilog2() / 2) as i32),
    };
    let values = values(name, shape.iter().product());
    let values: Vec<f32> = values.into_iter().map(|value| value * factor).collect();
    TensorData::new(values, shape.to_vec())
}

/// A folder as a user has it: the trunk's weights with a classifier behind them, and the committed heads.
pub fn folder(case: &str, net: Net) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let shapes = hub_shapes(
        &net.init::<TestBackend>(&device()).trunk,
        &maps::lpips::trunk(),
    );
    let mut tensors: BTreeMap<String, TensorData> = shapes
        .iter()
        .map(|(name, shape)| (name.clone(), parameter(name, shape)))
        .collect();
    let classifier = TensorData::new(vec![1f32; 4], [2, 2]);
    tensors.insert("classifier.6.weight".into(), classifier);
    let path = folder.path().join("model.safetensors");
    write_tensors(&path, &tensors, &BTreeMap::new()).expect("weights");
    copy_heads(case, folder.path());
    folder
}

fn copy_heads(case: &str, folder: &Path) {
    for entry in std::fs::read_dir(golden_dir(case).join("model")).expect("heads") {
        let file = entry.expect("a file").path();
        std::fs::copy(&file, folder.join(file.file_name().expect("a name"))).expect("a copy");
    }
}

fn open(case: &str, net: Net) -> Lpips<TestBackend> {
    let folder = folder(case, net);
    lpips::open(folder.path(), None, &device()).expect("a network")
}

#[test]
fn every_layer_of_every_net_matches_the_reference() {
    for (case, net) in CASES {
        let (network, golden) = (open(case, net), Golden::open(case));
        assert_eq!(network.trunk.net(), net);
        let distance = network
            .forward(golden.float("input.in0"), golden.float("input.in1"))
            .expect("distances");
        // The distances are small: the bound's absolute part has to be, too.
        for (name, actual) in [
            ("output.layer_distances", distance.layers.into_data()),
            ("output.distance", distance.total.into_data()),
        ] {
            compare(name, &golden.data(name), &actual, 1e-8, 1e-4);
        }
    }
}

#[test]
fn equal_images_are_no_distance_apart_and_order_does_not_matter() {
    let (network, golden) = (
        open("lpips-squeeze", Net::Squeeze),
        Golden::open("lpips-squeeze"),
    );
    let first: Tensor<TestBackend, 4> = golden.float("input.in0");
    let second: Tensor<TestBackend, 4> = golden.float("input.in1");
    let distance = |a: &Tensor<TestBackend, 4>, b: &Tensor<TestBackend, 4>| {
        let distance = network.forward(a.clone(), b.clone()).expect("distances");
        distance.total.into_data().iter::<f32>().collect::<Vec<_>>()
    };
    assert_eq!(distance(&first, &first), [0.0, 0.0]);
    assert_eq!(distance(&first, &second), distance(&second, &first));
}

#[test]
fn a_perturbed_weight_is_noticed() {
    let golden = Golden::open("lpips-squeeze");
    for file in ["trunk", "heads"] {
        let folder = folder("lpips-squeeze", Net::Squeeze);
        let (name, path, tensor) = match file {
            "trunk" => (
                "model.safetensors",
                "model.safetensors",
                "features.12.expand3x3.weight",
            ),
            _ => ("squeeze.pth", "lin.safetensors", "lin6.model.1.weight"),
        };
        let mut tensors = read_tensors(&folder.path().join(name)).expect("tensors");
        let nudged = tensors.get_mut(tensor).expect("the tensor");
        let values: Vec<f32> = nudged.iter::<f32>().map(|value| value * 1.02).collect();
        *nudged = TensorData::new(values, nudged.shape.clone());
        write_tensors(&folder.path().join(path), &tensors, &BTreeMap::new()).expect("weights");
        let network = lpips::open::<TestBackend>(folder.path(), None, &device()).expect("a net");
        let distance = network
            .forward(golden.float("input.in0"), golden.float("input.in1"))
            .expect("distances");
        let (expected, actual) = (golden.data("output.distance"), distance.total.into_data());
        let caught = catch_unwind(AssertUnwindSafe(|| {
            compare("distance", &expected, &actual, 1e-8, 1e-4);
        }));
        assert!(caught.is_err(), "{tensor} is 2 % off, and nothing was seen");
    }
}

#[test]
fn images_that_cannot_be_compared_are_refused() {
    let network = Net::Squeeze.init::<TestBackend>(&device());
    let image = |height, width| Tensor::<TestBackend, 4>::zeros([1, 3, height, width], &device());
    let error = network.forward(image(24, 40), image(24, 40));
    assert_eq!(
        error.expect_err("too small"),
        LpipsError::Size {
            net: Net::Squeeze,
            height: 24,
            width: 40,
            smallest: 25
        }
    );
    let error = network.forward(image(32, 40), image(40, 32));
    assert!(matches!(error, Err(LpipsError::Shape { .. })));
    // The smallest size that is promised works for every net.
    for (_, net) in CASES {
        let network = net.init::<TestBackend>(&device());
        let side = net.smallest_side();
        let distance = network.forward(image(side, side), image(side, side));
        let total = distance.expect("a distance").total.into_scalar();
        assert_eq!(total, 0.0, "{net}");
    }
}

/// Sets every parameter to zero.
struct Silence;

impl<B: Backend> ModuleMapper<B> for Silence {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|tensor| tensor.mul_scalar(0.0))
    }
}

#[test]
fn gradients_are_numbers_where_every_channel_is_zero() {
    let device = devices().train;
    let mut network = Net::Squeeze.init::<TestBackend>(&device);
    network.trunk = network.trunk.map(&mut Silence).no_grad();
    let image = Tensor::<TestBackend, 4>::full([1, 3, 32, 32], 0.3, &device).require_grad();
    let other = Tensor::<TestBackend, 4>::zeros([1, 3, 32, 32], &device);
    let distance = network.forward(image.clone(), other).expect("a distance");
    let gradients = distance.total.sum().backward();
    let gradient = image.grad(&gradients).expect("a gradient").into_data();
    assert!(gradient.iter::<f32>().all(f32::is_finite));
}

#[test]
fn a_folder_that_does_not_fit_says_why() {
    let complete = folder("lpips-squeeze", Net::Squeeze);
    let path = complete.path();
    let refuse = |path: &Path, net| {
        lpips::open::<TestBackend>(path, net, &device())
            .expect_err("must be refused")
            .to_string()
    };
    let error = refuse(path, Some(Net::Vgg));
    assert!(
        error.contains("said to be vgg") && error.contains("squeeze"),
        "{error}"
    );
    std::fs::write(path.join("config.json"), r#"{"net": "alexnet"}"#).expect("a file");
    assert!(refuse(path, None).contains("said to be alex"));
    std::fs::write(path.join("config.json"), r#"{"net": "resnet"}"#).expect("a file");
    assert!(refuse(path, None).contains("resnet"));
    std::fs::remove_file(path.join("config.json")).expect("a file");

    // Heads of another net: too few, and of other widths.
    std::fs::remove_file(path.join("squeeze.pth")).expect("a file");
    let error = refuse(path, None);
    assert!(
        error.contains("lin.safetensors") && error.contains("model.safetensors"),
        "{error}"
    );
    copy_heads("lpips-vgg", path);
    let error = refuse(path, None);
    assert!(error.contains("lin5.model.1.weight"), "{error}");

    // Something else altogether.
    let tensors = BTreeMap::from([("a.weight".to_string(), TensorData::new(vec![1f32], [1]))]);
    write_tensors(&path.join("model.safetensors"), &tensors, &BTreeMap::new()).expect("a file");
    assert!(refuse(path, None).contains("torchvision"));
    // A trunk of another name beside the heads is found; with two such files nothing is guessed.
    let two = folder("lpips-alex", Net::Alex);
    let trunk = two.path().join("model.safetensors");
    std::fs::rename(&trunk, two.path().join("alexnet-owt.safetensors")).expect("a file");
    lpips::open::<TestBackend>(two.path(), None, &device()).expect("a network");
    std::fs::write(two.path().join("other.pth"), "").expect("a file");
    assert!(refuse(two.path(), None).contains("no model.safetensors here"));
}

/// Needs `tests/golden/squeezenet.py`'s folder; says so where it is not there.
#[test]
fn a_real_squeezenet_sees_what_the_reference_sees() {
    let Some(folder) = std::env::var_os("RAGAR_TEST_WEIGHTS") else {
        println!("skipped: RAGAR_TEST_WEIGHTS names no folder of real weights");
        return;
    };
    let folder = Path::new(&folder).join("squeezenet1_1");
    if !folder.is_dir() {
        println!("skipped: no {}", folder.display());
        return;
    }
    let photos = read_tensors(&folder.join("photos.safetensors")).expect("photographs");
    let float = |name: &str| photos[name].clone().convert::<f32>();
    let network =
        lpips::open_squeezenet::<TestBackend>(&folder.join("model.safetensors"), &device())
            .expect("a classifier");
    let pixels = Tensor::<TestBackend, 4>::from_data(float("input"), &device());
    let scores = network.forward(pixels);
    compare(
        "scores",
        &float("scores"),
        &scores.clone().into_data(),
        1e-5,
        1e-4,
    );
    let best: Vec<i64> = scores.argmax(1).into_data().iter::<i64>().collect();
    assert_eq!(best, photos["best"].iter::<i64>().collect::<Vec<_>>());

    let metric = lpips::open::<TestBackend>(&folder, Some(Net::Squeeze), &device())
        .expect("the published heads");
    let changed = Tensor::<TestBackend, 5>::from_data(float("changed"), &device());
    let distances: Vec<Tensor<TestBackend, 2>> = changed
        .iter_dim(0)
        .map(|other| {
            let plain = Tensor::<TestBackend, 4>::from_data(float("plain"), &device());
            let distance = metric.forward(plain, other.squeeze_dim(0));
            distance.expect("distances").total.unsqueeze_dim(0)
        })
        .collect();
    let distances = Tensor::cat(distances, 0).into_data();
    compare("distances", &float("distances"), &distances, 1e-6, 1e-4);
    println!("compared with {}", folder.display());
}
