//! What the C interface of the CUDA kernels takes beside plain numbers, as C lays it out.

use std::ffi::c_void;
use std::marker::PhantomData;

/// Where numbers lie on the device; lives no longer than the storage that holds them.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Address<'a>(pub(super) *mut c_void, pub(super) PhantomData<&'a ()>);

impl Address<'_> {
    /// No numbers: an argument that is left out.
    pub(super) const NONE: Address<'static> = Address(std::ptr::null_mut(), PhantomData);
}

/// The stream in which a device's kernels run.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream(pub(super) *mut c_void);

/// A library in use.
#[repr(transparent)]
#[derive(Debug)]
pub(super) struct Handle<'a>(pub(super) *mut c_void, pub(super) PhantomData<&'a mut ()>);

/// `SftDropout`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Dropout<'a> {
    pub(super) key: [u32; 2],
    pub(super) step: u64,
    pub(super) threshold: u64,
    pub(super) addresses: Address<'a>,
    pub(super) keep: f32,
    pub(super) first_channel: u32,
    pub(super) all_channels: u32,
}

/// `SftHeads`.
#[repr(C)]
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the names that the kernels give them")]
pub(super) struct Heads {
    pub(super) heads: i32,
    pub(super) groups: i32,
    pub(super) head_dim: i32,
    pub(super) scale: f32,
    pub(super) first_head: i32,
    pub(super) all_heads: i32,
}

/// `SftAdamW`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct AdamW {
    pub(super) gradient: f32,
    pub(super) betas: [f32; 2],
    pub(super) rests: [f32; 2],
    pub(super) keep: f32,
    pub(super) step_size: f32,
    pub(super) root_scale: f32,
    pub(super) epsilon: f32,
}

/// `SftLinearActivation`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearActivation<'a> {
    pub(super) format: i32,
    pub(super) kind: i32,
    pub(super) input: Address<'a>,
    pub(super) weight: Address<'a>,
    pub(super) bias: Address<'a>,
    pub(super) before: Address<'a>,
    pub(super) out: Address<'a>,
    pub(super) tokens: i64,
    pub(super) depth: i64,
    pub(super) features: i64,
}
