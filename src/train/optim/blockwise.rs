//! Moments in 8 bits: blocks of 256 values, each scaled by its largest magnitude and rounded to one of 256 levels that are dense
//! near zero (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization": dynamic tree quantisation).

use tch::{Device, Kind, Tensor, no_grad};

use crate::native::AdamWStep;

/// Values that share a scale.
const BLOCK: i64 = 256;
/// Smaller tensors keep their moments in full: they cost nothing, and biases and norms are sensitive.
pub const SMALLEST: i64 = 4096;
/// Blocks that are updated together: enough that few kernels are launched, and that what is unpacked stays small (64 MiB each).
const GROUP_BLOCKS: i64 = 1 << 16;
/// Powers of ten that the levels span.
const DECADES: i32 = 7;

/// Tensors that are updated together, and their moments.
#[derive(Debug)]
pub struct Group {
    members: Vec<Member>,
    exp_avg: Moment,
    exp_avg_sq: Moment,
    signed: Levels,
    unsigned: Levels,
}

/// A tensor, and its rows in the moments of its group.
#[derive(Debug)]
struct Member {
    name: String,
    param: Tensor,
    first_row: i64,
    rows: i64,
    /// Updates so far: float32, on the CPU, where reading it waits for nothing.
    step: Tensor,
}

impl Group {
    /// `trained` in groups, with moments of zero.
    pub fn all(trained: Vec<(&String, &Tensor)>) -> Vec<Group> {
        let (mut groups, mut members, mut rows) = (Vec::new(), Vec::new(), 0);
        for (name, param) in trained {
            let own = (param.numel() as i64 + BLOCK - 1) / BLOCK;
            if rows > 0 && rows + own > GROUP_BLOCKS {
                groups.push(Group::new(std::mem::take(&mut members), rows));
                rows = 0;
            }
            let step = Tensor::zeros([], (Kind::Float, Device::Cpu));
            members.push(Member { name: name.clone(), param: param.shallow_clone(), first_row: rows, rows: own, step });
            rows += own;
        }
        if rows > 0 {
            groups.push(Group::new(members, rows));
        }
        groups
    }

    fn new(members: Vec<Member>, rows: i64) -> Group {
        let device = members[0].param.device();
        let (signed, unsigned) = (Levels::new(device, true), Levels::new(device, false));
        let (exp_avg, exp_avg_sq) = (Moment::zeros(rows, &signed), Moment::zeros(rows, &unsigned));
        Group { members, exp_avg, exp_avg_sq, signed, unsigned }
    }

    /// One update of those that have a gradient; the moments of others stay.
    pub fn step(&mut self, step: AdamWStep) {
        no_grad(|| {
            let grads = self.grads();
            let exp_avg = self.exp_avg.load(&self.signed) * step.beta1 + &grads * (1.0 - step.beta1);
            let exp_avg_sq = self.exp_avg_sq.load(&self.unsigned) * step.beta2 + grads.square() * (1.0 - step.beta2);
            for member in &mut self.members {
                member.update(&exp_avg, &exp_avg_sq, step);
            }
            self.keep(exp_avg, exp_avg_sq);
        });
    }

    /// Gradients as rows; what fills the last row of a tensor up is zero.
    fn grads(&self) -> Tensor {
        let grads = Tensor::zeros(self.exp_avg.codes.size(), (Kind::Float, self.exp_avg.codes.device()));
        for member in &self.members {
            let grad = member.param.grad();
            if grad.defined() {
                member.values(&grads).copy_(&grad.view(-1));
            }
        }
        grads
    }

    /// Rounds the moments into their place, but for tensors that the loss did not reach.
    fn keep(&mut self, exp_avg: Tensor, exp_avg_sq: Tensor) {
        if self.members.iter().all(|member| member.param.grad().defined()) {
            self.exp_avg.store(&exp_avg, &self.signed);
            self.exp_avg_sq.store(&exp_avg_sq, &self.unsigned);
            return;
        }
        for member in self.members.iter().filter(|member| member.param.grad().defined()) {
            let rows = |tensor: &Tensor| tensor.narrow(0, member.first_row, member.rows);
            self.exp_avg.rows(member).store(&rows(&exp_avg), &self.signed);
            self.exp_avg_sq.rows(member).store(&rows(&exp_avg_sq), &self.unsigned);
        }
    }

    /// Codes, scales and counters by name; the tensors are views into the group's.
    pub fn state(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        self.members.iter().flat_map(|member| {
            let (exp_avg, exp_avg_sq) = (self.exp_avg.rows(member), self.exp_avg_sq.rows(member));
            [
                ("exp_avg", exp_avg.codes),
                ("exp_avg.scales", exp_avg.scales),
                ("exp_avg_sq", exp_avg_sq.codes),
                ("exp_avg_sq.scales", exp_avg_sq.scales),
                ("step", member.step.shallow_clone()),
            ]
            .map(|(part, tensor)| (format!("{}.{part}", member.name), tensor))
        })
    }
}

impl Member {
    /// Its values among the rows of its group, in one dimension.
    fn values(&self, rows: &Tensor) -> Tensor {
        rows.narrow(0, self.first_row, self.rows).view(-1).narrow(0, 0, self.param.numel() as i64)
    }

    /// `p ← p·(1 − lr·decay) − lr/(1 − β₁ⁿ) · m / (√v/√(1 − β₂ⁿ) + ε)`.
    fn update(&mut self, exp_avg: &Tensor, exp_avg_sq: &Tensor, step: AdamWStep) {
        if !self.param.grad().defined() {
            return;
        }
        let _ = self.step.g_add_scalar_(1);
        let count = self.step.double_value(&[]);
        let corrections = (1.0 - step.beta1.powf(count), (1.0 - step.beta2.powf(count)).sqrt());
        let denominator = self.values(exp_avg_sq).sqrt() / corrections.1 + step.eps;
        let change = self.values(exp_avg) / denominator * (-step.lr / corrections.0);
        let _ = self.param.g_mul_scalar_(1.0 - step.lr * step.weight_decay);
        let _ = self.param.g_add_(&change.view_as(&self.param));
    }
}

/// The levels that one code stands for, ascending, in [-1, 1] or [0, 1].
#[derive(Debug)]
struct Levels {
    levels: Tensor,
    /// Halfway between neighbours: what lies between two of them is rounded to the level there.
    bounds: Tensor,
}

impl Levels {
    /// Of both signs for a first moment, from zero up for a second.
    fn new(device: Device, signed: bool) -> Levels {
        let values = levels(signed);
        let bounds: Vec<f32> = values.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
        Levels {
            levels: Tensor::from_slice(&values).to_device(device),
            bounds: Tensor::from_slice(&bounds).to_device(device),
        }
    }
}

/// 256 levels. Decade `i` counted from the smallest has `2^i` levels of each sign (twice as many without signs), in the middles of
/// equal parts of its upper nine tenths; 0 and 1 are levels too.
pub fn levels(signed: bool) -> Vec<f32> {
    let mut levels = vec![0.0, 1.0];
    for decade in 0..DECADES {
        let parts = if signed { 1 << decade } else { 2 << decade };
        let top = 10.0_f64.powi(decade + 1 - DECADES);
        for part in 0..parts {
            let middle = 0.1 + 0.9 * (f64::from(part) + 0.5) / f64::from(parts);
            levels.push((top * middle) as f32);
            if signed {
                levels.push((-top * middle) as f32);
            }
        }
    }
    levels.sort_by(f32::total_cmp);
    levels
}

/// A moment in blocks: codes `[rows, 256]`, and each row's scale `[rows, 1]`.
#[derive(Debug)]
struct Moment {
    /// uint8.
    codes: Tensor,
    /// float32.
    scales: Tensor,
}

impl Moment {
    /// All zero.
    fn zeros(rows: i64, levels: &Levels) -> Moment {
        let device = levels.levels.device();
        let mut moment = Moment {
            codes: Tensor::zeros([rows, BLOCK], (Kind::Uint8, device)),
            scales: Tensor::zeros([rows, 1], (Kind::Float, device)),
        };
        moment.store(&Tensor::zeros([rows, BLOCK], (Kind::Float, device)), levels);
        moment
    }

    /// Views of one tensor's rows.
    fn rows(&self, member: &Member) -> Moment {
        let rows = |tensor: &Tensor| tensor.narrow(0, member.first_row, member.rows);
        Moment { codes: rows(&self.codes), scales: rows(&self.scales) }
    }

    /// The values, float32 `[rows, 256]`.
    fn load(&self, levels: &Levels) -> Tensor {
        let codes = self.codes.to_kind(Kind::Int).view(-1);
        levels.levels.index_select(0, &codes).view_as(&self.codes) * &self.scales
    }

    /// Rounds `values` `[rows, 256]` into its place.
    fn store(&mut self, values: &Tensor, levels: &Levels) {
        let scales = values.abs().amax([1], true);
        // A row of zeros has no scale: any will do.
        let unit = values / scales.clamp_min(f64::from(f32::MIN_POSITIVE));
        self.codes.copy_(&unit.bucketize(&levels.bounds, true, false));
        self.scales.copy_(&scales);
    }
}
