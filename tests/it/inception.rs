//! FID's InceptionV3 against `pytorch-fid`, at its full width.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use model_import::{hub_shapes, maps, write_tensors};
use ragar::networks::inception::{InceptionV3, WIDTH};
use ragar::pretrained::inception;

use crate::lpips::parameter;
use crate::support::{Golden, TestBackend, device, differs};

/// The weights' file as a user has it: by the formula of `tests/golden/inception.py`, with what is not needed.
pub(crate) fn weights() -> BTreeMap<String, TensorData> {
    let network = InceptionV3::<TestBackend>::new(&device());
    let shapes = hub_shapes(&network, &maps::inception::features());
    let mut tensors: BTreeMap<String, TensorData> = shapes
        .iter()
        .map(|(name, shape)| {
            let drawn = parameter(name, shape);
            let positive = name.ends_with("bn.weight") || name.ends_with("bn.running_var");
            let data = match positive {
                true => {
                    let values: Vec<f32> = drawn.iter::<f32>().map(|value| 1.0 + value).collect();
                    TensorData::new(values, shape.clone())
                }
                false => drawn,
            };
            (name.clone(), data)
        })
        .collect();
    tensors.insert("fc.bias".into(), TensorData::new(vec![0f32; 1008], [1008]));
    tensors
}

fn open(tensors: &BTreeMap<String, TensorData>) -> Box<InceptionV3<TestBackend>> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("inception.safetensors");
    write_tensors(&path, tensors, &BTreeMap::new()).expect("weights");
    inception::open(&path, &device()).expect("a network").0
}

#[test]
fn features_match_pytorch_fid_and_a_changed_weight_shows() {
    let golden = Golden::open("inception");
    let squares: Tensor<TestBackend, 4> = golden.float("input.squares");
    let [_, _, height, width] = squares.dims();
    let images = squares
        .reshape([1, 3, height, 1, width, 1])
        .expand([1, 3, height, 3, width, 3])
        .reshape([1, 3, 3 * height, 3 * width]);
    let mut tensors = weights();
    let network = open(&tensors);
    golden.check("output.features", network.features_at_size(images.clone()));
    golden.check(
        "output.resized_features",
        network.features(golden.float("input.small")),
    );
    // One pooled branch, one scale: the smallest of parts.
    let name = "Mixed_7c.branch_pool.bn.weight";
    let scale = tensors.get_mut(name).expect("a scale");
    scale.as_mut_slice::<f32>().expect("floats")[7] += 0.1;
    let found = open(&tensors).features_at_size(images).into_data();
    assert_eq!(found.shape.to_vec(), [1, WIDTH]);
    assert!(differs(&golden.data("output.features"), &found));
}

#[test]
fn a_file_that_does_not_fit_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = inception::open::<TestBackend>(folder.path(), &device()).unwrap_err();
    assert!(error.to_string().contains("inception"), "{error}");
    let path = folder.path().join("other.safetensors");
    let other = BTreeMap::from([("a".to_string(), TensorData::new(vec![1f32], [1]))]);
    write_tensors(&path, &other, &BTreeMap::new()).expect("weights");
    let error = inception::open::<TestBackend>(&path, &device()).unwrap_err();
    assert!(error.to_string().contains("Conv2d_1a_3x3"), "{error}");
}
