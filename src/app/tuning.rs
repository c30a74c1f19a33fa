//! What Burn's GPU backends do silently: where a kernel meets a new shape they time its variants, and keep on disk which one won.

use std::fs;
use std::path::Path;

/// What to say before a device is used for the first time; nothing where its kernels have been tuned before.
///
/// `folder` holds a folder per version of the backend, in it one per device, in it a log per kernel; `is_ours` tells the
/// device by its folder's name.
pub fn untuned(folder: &Path, is_ours: impl Fn(&str) -> bool) -> Option<String> {
    let inside = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let is_tuned = inside(folder)
        .flat_map(|version| inside(&version.path()))
        .filter(|device| is_ours(&device.file_name().to_string_lossy()))
        .flat_map(|device| inside(&device.path()))
        .any(|kernel| kernel.metadata().is_ok_and(|file| file.len() > 0));
    (!is_tuned).then(|| {
        format!(
            "First use of this GPU: each kernel is tuned where it meets a shape for the first time. That takes minutes in all, and what is found is kept in {}.",
            folder.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_until_a_kernel_of_that_device_was_tuned() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("autotune");
        let ours = |device: &str| device.contains("wgpu");
        let said = untuned(&root, ours).expect("nothing is there");
        assert!(said.contains(&root.display().to_string()), "{said}");

        let other = root.join("0.10.0/device-0-0-cuda");
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("matmul.json.log"), "{}").unwrap();
        assert!(untuned(&root, ours).is_some(), "another device's");

        let device = root.join("0.10.0/device-4-0-wgpu_wgsl_");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("matmul.json.log"), "").unwrap();
        assert!(untuned(&root, ours).is_some(), "begun, nothing kept");

        fs::write(device.join("matmul.json.log"), "{}").unwrap();
        assert_eq!(untuned(&root, ours), None);
    }
}
