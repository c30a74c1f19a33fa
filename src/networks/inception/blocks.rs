//! The five blocks, branches side by side.
// Fields carry the checkpoint's names.
#![allow(non_snake_case)]

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use super::layer::{BasicConv, Window, largest_pool, mean_pool};

/// 35 × 35: squares of one, three and five.
#[derive(Module, Debug)]
pub struct BlockA<B: Backend> {
    pub branch1x1: BasicConv<B>,
    pub branch5x5_1: BasicConv<B>,
    pub branch5x5_2: BasicConv<B>,
    pub branch3x3dbl_1: BasicConv<B>,
    pub branch3x3dbl_2: BasicConv<B>,
    pub branch3x3dbl_3: BasicConv<B>,
    pub branch_pool: BasicConv<B>,
}

impl<B: Backend> BlockA<B> {
    #[inline(never)]
    pub(super) fn new(from: usize, pooled: usize, device: &B::Device) -> Self {
        let conv = |channels, window| BasicConv::new(channels, window, device);
        Self {
            branch1x1: conv([from, 64], Window::same(1)),
            branch5x5_1: conv([from, 48], Window::same(1)),
            branch5x5_2: conv([48, 64], Window::same(5)),
            branch3x3dbl_1: conv([from, 64], Window::same(1)),
            branch3x3dbl_2: conv([64, 96], Window::same(3)),
            branch3x3dbl_3: conv([96, 96], Window::same(3)),
            branch_pool: conv([from, pooled], Window::same(1)),
        }
    }

    pub(super) fn forward(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        let five = self.branch5x5_1.forward(states.clone());
        let three = self.branch3x3dbl_1.forward(states.clone());
        let three = self.branch3x3dbl_2.forward(three);
        let branches = vec![
            self.branch1x1.forward(states.clone()),
            self.branch5x5_2.forward(five),
            self.branch3x3dbl_3.forward(three),
            self.branch_pool.forward(mean_pool(states)),
        ];
        Tensor::cat(branches, 1)
    }
}

/// From 35 × 35 to 17 × 17.
#[derive(Module, Debug)]
pub struct BlockB<B: Backend> {
    pub branch3x3: BasicConv<B>,
    pub branch3x3dbl_1: BasicConv<B>,
    pub branch3x3dbl_2: BasicConv<B>,
    pub branch3x3dbl_3: BasicConv<B>,
}

impl<B: Backend> BlockB<B> {
    #[inline(never)]
    pub(super) fn new(from: usize, device: &B::Device) -> Self {
        let conv = |channels, window| BasicConv::new(channels, window, device);
        Self {
            branch3x3: conv([from, 384], Window::halving(3)),
            branch3x3dbl_1: conv([from, 64], Window::same(1)),
            branch3x3dbl_2: conv([64, 96], Window::same(3)),
            branch3x3dbl_3: conv([96, 96], Window::halving(3)),
        }
    }

    pub(super) fn forward(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        let double = self.branch3x3dbl_1.forward(states.clone());
        let double = self.branch3x3dbl_2.forward(double);
        let branches = vec![
            self.branch3x3.forward(states.clone()),
            self.branch3x3dbl_3.forward(double),
            largest_pool(states, 2, 0),
        ];
        Tensor::cat(branches, 1)
    }
}

/// 17 × 17: rows and columns of seven.
#[derive(Module, Debug)]
pub struct BlockC<B: Backend> {
    pub branch1x1: BasicConv<B>,
    pub branch7x7_1: BasicConv<B>,
    pub branch7x7_2: BasicConv<B>,
    pub branch7x7_3: BasicConv<B>,
    pub branch7x7dbl_1: BasicConv<B>,
    pub branch7x7dbl_2: BasicConv<B>,
    pub branch7x7dbl_3: BasicConv<B>,
    pub branch7x7dbl_4: BasicConv<B>,
    pub branch7x7dbl_5: BasicConv<B>,
    pub branch_pool: BasicConv<B>,
}

impl<B: Backend> BlockC<B> {
    #[inline(never)]
    pub(super) fn new(inner: usize, device: &B::Device) -> Self {
        let conv = |channels, window| BasicConv::new(channels, window, device);
        Self {
            branch1x1: conv([768, 192], Window::same(1)),
            branch7x7_1: conv([768, inner], Window::same(1)),
            branch7x7_2: conv([inner, inner], Window::row(7)),
            branch7x7_3: conv([inner, 192], Window::column(7)),
            branch7x7dbl_1: conv([768, inner], Window::same(1)),
            branch7x7dbl_2: conv([inner, inner], Window::column(7)),
            branch7x7dbl_3: conv([inner, inner], Window::row(7)),
            branch7x7dbl_4: conv([inner, inner], Window::column(7)),
            branch7x7dbl_5: conv([inner, 192], Window::row(7)),
            branch_pool: conv([768, 192], Window::same(1)),
        }
    }

    pub(super) fn forward(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        let seven = [&self.branch7x7_1, &self.branch7x7_2, &self.branch7x7_3];
        let double = [
            &self.branch7x7dbl_1,
            &self.branch7x7dbl_2,
            &self.branch7x7dbl_3,
            &self.branch7x7dbl_4,
            &self.branch7x7dbl_5,
        ];
        let branches = vec![
            self.branch1x1.forward(states.clone()),
            chain(&seven, states.clone()),
            chain(&double, states.clone()),
            self.branch_pool.forward(mean_pool(states)),
        ];
        Tensor::cat(branches, 1)
    }
}

/// From 17 × 17 to 8 × 8.
#[derive(Module, Debug)]
pub struct BlockD<B: Backend> {
    pub branch3x3_1: BasicConv<B>,
    pub branch3x3_2: BasicConv<B>,
    pub branch7x7x3_1: BasicConv<B>,
    pub branch7x7x3_2: BasicConv<B>,
    pub branch7x7x3_3: BasicConv<B>,
    pub branch7x7x3_4: BasicConv<B>,
}

impl<B: Backend> BlockD<B> {
    #[inline(never)]
    pub(super) fn new(device: &B::Device) -> Self {
        let conv = |channels, window| BasicConv::new(channels, window, device);
        Self {
            branch3x3_1: conv([768, 192], Window::same(1)),
            branch3x3_2: conv([192, 320], Window::halving(3)),
            branch7x7x3_1: conv([768, 192], Window::same(1)),
            branch7x7x3_2: conv([192, 192], Window::row(7)),
            branch7x7x3_3: conv([192, 192], Window::column(7)),
            branch7x7x3_4: conv([192, 192], Window::halving(3)),
        }
    }

    pub(super) fn forward(&self, states: Tensor<B, 4>) -> Tensor<B, 4> {
        let three = [&self.branch3x3_1, &self.branch3x3_2];
        let seven = [
            &self.branch7x7x3_1,
            &self.branch7x7x3_2,
            &self.branch7x7x3_3,
            &self.branch7x7x3_4,
        ];
        let branches = vec![
            chain(&three, states.clone()),
            chain(&seven, states.clone()),
            largest_pool(states, 2, 0),
        ];
        Tensor::cat(branches, 1)
    }
}

/// 8 × 8: rows and columns of three, side by side.
#[derive(Module, Debug)]
pub struct BlockE<B: Backend> {
    pub branch1x1: BasicConv<B>,
    pub branch3x3_1: BasicConv<B>,
    pub branch3x3_2a: BasicConv<B>,
    pub branch3x3_2b: BasicConv<B>,
    pub branch3x3dbl_1: BasicConv<B>,
    pub branch3x3dbl_2: BasicConv<B>,
    pub branch3x3dbl_3a: BasicConv<B>,
    pub branch3x3dbl_3b: BasicConv<B>,
    pub branch_pool: BasicConv<B>,
}

/// How the last branch of a [`BlockE`] pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    Mean,
    Largest,
}

impl<B: Backend> BlockE<B> {
    #[inline(never)]
    pub(super) fn new(from: usize, device: &B::Device) -> Self {
        let conv = |channels, window| BasicConv::new(channels, window, device);
        Self {
            branch1x1: conv([from, 320], Window::same(1)),
            branch3x3_1: conv([from, 384], Window::same(1)),
            branch3x3_2a: conv([384, 384], Window::row(3)),
            branch3x3_2b: conv([384, 384], Window::column(3)),
            branch3x3dbl_1: conv([from, 448], Window::same(1)),
            branch3x3dbl_2: conv([448, 384], Window::same(3)),
            branch3x3dbl_3a: conv([384, 384], Window::row(3)),
            branch3x3dbl_3b: conv([384, 384], Window::column(3)),
            branch_pool: conv([from, 192], Window::same(1)),
        }
    }

    pub(super) fn forward(&self, states: Tensor<B, 4>, pooling: Pooling) -> Tensor<B, 4> {
        let three = self.branch3x3_1.forward(states.clone());
        let double = chain(
            &[&self.branch3x3dbl_1, &self.branch3x3dbl_2],
            states.clone(),
        );
        let pooled = match pooling {
            Pooling::Mean => mean_pool(states.clone()),
            Pooling::Largest => largest_pool(states.clone(), 1, 1),
        };
        let branches = vec![
            self.branch1x1.forward(states),
            self.branch3x3_2a.forward(three.clone()),
            self.branch3x3_2b.forward(three),
            self.branch3x3dbl_3a.forward(double.clone()),
            self.branch3x3dbl_3b.forward(double),
            self.branch_pool.forward(pooled),
        ];
        Tensor::cat(branches, 1)
    }
}

fn chain<B: Backend>(layers: &[&BasicConv<B>], states: Tensor<B, 4>) -> Tensor<B, 4> {
    layers
        .iter()
        .fold(states, |states, layer| layer.forward(states))
}
