//! UNet2DConditionModel.
