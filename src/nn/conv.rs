//! Convolutions over pictures, and along sequences.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::{Device, Kind, Tensor};

use super::{
    in_kind,
    params::{Init, Params},
};
use crate::native::{
    frozen_conv2d,
    kernels::{linear, pack_conv2d, pack_linear, packed_conv2d, packed_linear, patches},
};

/// Maps this narrow are multiplied as one matrix of patches: convolution kernels go along rows, and these are too short.
const NARROW: i64 = 3;
/// Maps from this side on are doubled by four small convolutions; on smaller ones their margins eat what they save.
const DOUBLED_FROM: i64 = 8;

/// A weight that is not packed is put in order for each convolution anew. Up to this many places for each channel that comes out, a
/// product of patches, which reads the weight as it lies, takes less: in float32, and not known in bf16 on matrix units.
const PLACES_PER_CHANNEL: f64 = 0.5;

/// A square-kernel convolution with bias.
#[derive(Debug)]
pub struct Conv2d {
    weight: Weight,
    bias: Tensor,
    stride: i64,
    padding: i64,
    kernel: i64,
}

/// `[out, in, kernel, kernel]`.
#[derive(Debug)]
enum Weight {
    Plain(Tensor),
    /// Put in order when the first picture shows its size.
    Packed(Mutex<Form>),
}

/// What became of a weight.
#[derive(Debug)]
enum Form {
    Loose(Tensor),
    /// As convolutions read it.
    Ordered(Tensor),
    /// As a matrix of patches is multiplied by it.
    Product(Tensor),
    /// Four 2×2 kernels, one for each corner of a doubled pixel, and the whole.
    Doubling(Vec<Tensor>, Tensor),
}

impl Conv2d {
    /// Weight `[out, in, kernel, kernel]`, bias `[out]`, stride 1, padding that keeps the size.
    pub fn new(params: &Params, in_channels: i64, out_channels: i64, kernel: i64) -> Conv2d {
        let init = Init::FanIn(in_channels * kernel * kernel);
        let weight = params.tensor("weight", &[out_channels, in_channels, kernel, kernel], init);
        Conv2d {
            weight: if params.packs() {
                Weight::Packed(Mutex::new(Form::Loose(weight)))
            } else {
                Weight::Plain(weight)
            },
            bias: params.tensor("bias", &[out_channels], init),
            stride: 1,
            padding: kernel / 2,
            kernel,
        }
    }

    /// Another stride.
    pub fn stride(self, stride: i64) -> Conv2d {
        Conv2d { stride, ..self }
    }

    /// Another symmetric padding.
    pub fn padding(self, padding: i64) -> Conv2d {
        Conv2d { padding, ..self }
    }

    /// What its weights are kept in.
    pub fn kind(&self) -> Kind {
        self.bias.kind()
    }

    /// `[N, in, H, W]` to `[N, out, H', W']`, in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match &self.weight {
            Weight::Plain(weight) => self.forward_plain(x, weight),
            Weight::Packed(form) => self.forward_packed(x, form, None),
        }
    }

    /// The same, added to `onto` `[N, out, H', W']`.
    pub fn forward_onto(&self, x: &Tensor, onto: &Tensor) -> Tensor {
        match &self.weight {
            Weight::Plain(weight) => onto + self.forward_plain(x, weight),
            Weight::Packed(form) => self.forward_packed(x, form, Some(onto)),
        }
    }

    /// Of `x` with each pixel made two by two. For 3×3 kernels.
    pub fn forward_doubled(&self, x: &Tensor) -> Tensor {
        let (_, _, height, width) = x.size4().expect("[N, C, H, W]");
        let plain = || self.forward(&x.upsample_nearest2d([2 * height, 2 * width], None, None));
        let Weight::Packed(form) = &self.weight else { return plain() };
        if height.min(width) < DOUBLED_FROM {
            return plain();
        }
        let mut form = lock(form);
        if let Form::Loose(weight) = &*form {
            let whole = weight.shallow_clone();
            *form = Form::Doubling(corners(&whole).iter().map(|corner| pack_conv2d(corner, 1, 1, x)).collect(), whole);
        }
        let Form::Doubling(corners, _) = &*form else {
            drop(form);
            return plain();
        };
        let corners: Vec<Tensor> = corners.iter().map(Tensor::shallow_clone).collect();
        drop(form);
        doubled(x, &corners, &self.bias)
    }

    fn forward_plain(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let (weight, bias) = (in_kind(weight, x.kind()), in_kind(&self.bias, x.kind()));
        let trained = weight.requires_grad() || bias.requires_grad();
        if !trained && self.has_few_places(x) {
            return self.multiply_plain(x, &weight, &bias);
        }
        if trained || !x.requires_grad() {
            return x.conv2d(&weight, Some(&bias), [self.stride; 2], [self.padding; 2], [1, 1], 1);
        }
        frozen_conv2d(x, &weight, &bias, self.stride, self.padding)
    }

    fn forward_packed(&self, x: &Tensor, form: &Mutex<Form>, onto: Option<&Tensor>) -> Tensor {
        let mut form = lock(form);
        if let Form::Loose(weight) = &*form {
            *form = self.pack(weight, x);
        }
        match &*form {
            Form::Loose(weight) | Form::Doubling(_, weight) => {
                let weight = weight.shallow_clone();
                drop(form);
                let y = self.forward_plain(x, &weight);
                onto.map_or_else(|| y.shallow_clone(), |onto| onto + &y)
            }
            Form::Ordered(weight) => {
                let weight = weight.shallow_clone();
                drop(form);
                let convolve = |onto| packed_conv2d(x, &weight, Some(&self.bias), onto, self.stride, self.padding);
                // oneDNN cannot tell how a picture of one pixel lies, and adds to none.
                match onto.filter(|onto| onto.size()[2..] == [1, 1]) {
                    Some(onto) => onto + convolve(None),
                    None => convolve(onto),
                }
            }
            Form::Product(weight) => {
                let weight = weight.shallow_clone();
                drop(form);
                self.multiply(x, &weight, onto)
            }
        }
    }

    fn pack(&self, weight: &Tensor, x: &Tensor) -> Form {
        if self.kernel == 1 && self.stride == 1 || x.size()[3] <= NARROW {
            Form::Product(pack_linear(&weight.permute([0, 2, 3, 1]).reshape([weight.size()[0], -1])))
        } else {
            Form::Ordered(pack_conv2d(weight, self.stride, self.padding, x))
        }
    }

    /// `[N, H', W']` of what comes out.
    fn places(&self, x: &Tensor) -> [i64; 3] {
        let (pictures, _, height, width) = x.size4().expect("[N, C, H, W]");
        let side = |length: i64| (length + 2 * self.padding - self.kernel) / self.stride + 1;
        [pictures, side(height), side(width)]
    }

    fn has_few_places(&self, x: &Tensor) -> bool {
        let places: i64 = self.places(x).iter().product();
        x.device() == Device::Cpu
            && x.kind() == Kind::Float
            && (places as f64) <= PLACES_PER_CHANNEL * self.bias.size()[0] as f64
    }

    /// The convolution as one product of all patches, by a weight as it lies. Has a gradient.
    fn multiply_plain(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        let [pictures, height, width] = self.places(x);
        let columns = x.im2col([self.kernel; 2], [1, 1], [self.padding; 2], [self.stride; 2]);
        let y = linear(&columns.transpose(1, 2), &weight.reshape([weight.size()[0], -1]), Some(bias));
        y.view([pictures, height, width, -1]).permute([0, 3, 1, 2])
    }

    /// The same by a packed weight.
    fn multiply(&self, x: &Tensor, weight: &Tensor, onto: Option<&Tensor>) -> Tensor {
        let [pictures, height, width] = self.places(x);
        let rows = |picture: &Tensor| picture.permute([0, 2, 3, 1]).reshape([-1, picture.size()[1]]);
        let patches = match self.kernel == 1 && self.stride == 1 {
            true => rows(x),
            false => patches(x, self.kernel, self.stride, self.padding),
        };
        let y = packed_linear(&patches, weight, Some(&self.bias), onto.map(rows).as_ref());
        y.view([pictures, height, width, -1]).permute([0, 3, 1, 2])
    }
}

fn lock(form: &Mutex<Form>) -> MutexGuard<'_, Form> {
    form.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The 2×2 kernels that do to a picture what a 3×3 `weight` does to it doubled: at each corner of a doubled pixel two rows, and
/// two columns, of the kernel lie on the same pixel, and are summed. In the order (0, 0), (0, 1), (1, 0), (1, 1).
fn corners(weight: &Tensor) -> Vec<Tensor> {
    let wide = weight.to_kind(Kind::Float);
    let halves = |weight: &Tensor, axis: i64| {
        let part =
            |start, length| weight.narrow(axis, start, length).sum_dim_intlist([axis].as_slice(), true, Kind::Float);
        let pair = |first: Tensor, second: Tensor| Tensor::cat(&[first, second], axis);
        [pair(part(0, 1), part(1, 2)), pair(part(0, 2), part(2, 1))]
    };
    let rows = halves(&wide, 2);
    rows.iter().flat_map(|rows| halves(rows, 3)).map(|corner| corner.to_kind(weight.kind())).collect()
}

/// `[N, C, H, W]` to `[N, out, 2·H, 2·W]` by the packed kernels of the four corners.
fn doubled(x: &Tensor, corners: &[Tensor], bias: &Tensor) -> Tensor {
    let (pictures, _, height, width) = x.size4().expect("[N, C, H, W]");
    let out = Tensor::empty([pictures, height, 2, width, 2, bias.size()[0]], (x.kind(), x.device()));
    for (index, corner) in (0..).zip(corners) {
        let (down, right) = (index / 2, index % 2);
        let part = packed_conv2d(x, corner, Some(bias), None, 1, 1).permute([0, 2, 3, 1]);
        out.select(4, right).select(2, down).copy_(&part.narrow(1, down, height).narrow(2, right, width));
    }
    out.view([pictures, 2 * height, 2 * width, -1]).permute([0, 3, 1, 2])
}

/// A convolution along sequences, of odd width, with bias; zeros before the first element and after the last.
#[derive(Debug)]
pub struct Conv1d {
    weight: Tensor,
    bias: Tensor,
    padding: i64,
}

impl Conv1d {
    /// Weight `[out, in, kernel]`, bias `[out]`; the length stays.
    pub fn new(params: &Params, in_channels: i64, out_channels: i64, kernel: i64) -> Conv1d {
        let init = Init::FanIn(in_channels * kernel);
        Conv1d {
            weight: params.tensor("weight", &[out_channels, in_channels, kernel], init),
            bias: params.tensor("bias", &[out_channels], init),
            padding: kernel / 2,
        }
    }

    /// `[N, in, L]` to `[N, out, L]`, in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (in_kind(&self.weight, x.kind()), in_kind(&self.bias, x.kind()));
        x.conv1d(&weight, Some(&bias), 1, self.padding, 1, 1)
    }
}
