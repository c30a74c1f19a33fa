//! SSIM.
