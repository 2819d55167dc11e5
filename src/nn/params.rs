//! Where a parameter's fate is decided: read or initialised, frozen or trained, with a low-rank pair or without.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::{self, Display},
    ops::Div,
    rc::Rc,
};

use tch::{Device, Kind, Tensor, no_grad};

use super::{
    linear::LoraPair,
    plan::{Pattern, Plan},
};
use crate::native::kernels;

/// Where weights are taken from, by full name. Taking removes: what is left over at the end was not part of the model.
pub trait Source {
    /// The tensor of that name, if there is one, on the CPU in the kind it was stored in.
    fn take(&mut self, name: &str) -> Option<Tensor>;
    /// Whether all values of `name` are finite, where that is known without the tensor.
    fn is_finite(&self, _name: &str) -> Option<bool> {
        None
    }
    /// Names that were not taken.
    fn left(&self) -> Vec<String>;
    /// The file that a name came from, taken or not, where that is known.
    fn origin(&self, name: &str) -> Option<String>;
}

/// A source of nothing: every parameter is initialised.
pub struct Empty;

impl Source for Empty {
    fn take(&mut self, _name: &str) -> Option<Tensor> {
        None
    }

    fn left(&self) -> Vec<String> {
        Vec::new()
    }

    fn origin(&self, _name: &str) -> Option<String> {
        None
    }
}

/// How a parameter starts when it is not read from the source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Uniform in `±1/√fan_in`: PyTorch's default for linear and convolution weights and biases.
    FanIn(i64),
    /// Normal with this standard deviation.
    Normal(f64),
}

/// What was wrong with the source, gathered over a whole build.
#[derive(Debug, Default)]
pub struct Problems {
    /// The file that the first name below came from, where one is known.
    pub origin: Option<String>,
    /// Names the model has and the source has not.
    pub missing: Vec<String>,
    /// Names the source has and the model has not.
    pub unknown: Vec<String>,
    /// Name, shape of the model, shape in the source.
    pub misshapen: Vec<(String, Vec<i64>, Vec<i64>)>,
    /// Names of tensors with NaN or infinite values.
    pub not_finite: Vec<String>,
    /// Patterns of the plan that matched no layer.
    pub unmatched: Vec<String>,
}

impl Problems {
    /// Whether the build went well.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unknown.is_empty()
            && self.misshapen.is_empty()
            && self.not_finite.is_empty()
            && self.unmatched.is_empty()
    }
}

impl Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some((name, expected, found)) = self.misshapen.first() {
            parts.push(format!(
                "{} another shape, first `{name}`: the model has {expected:?}, the file {found:?}",
                tensors(self.misshapen.len(), "has", "have")
            ));
        }
        if let Some(first) = self.unknown.first() {
            parts
                .push(format!("{} no place in the model, first `{first}`", tensors(self.unknown.len(), "has", "have")));
        }
        if let Some(first) = self.missing.first() {
            parts.push(format!("{} missing, first `{first}`", tensors(self.missing.len(), "is", "are")));
        }
        if let Some(first) = self.not_finite.first() {
            let subject = tensors(self.not_finite.len(), "holds", "hold");
            parts.push(format!("{subject} NaN or infinite values, first `{first}`"));
        }
        if !self.unmatched.is_empty() {
            parts.push(format!("nothing in the model matches `{}`", self.unmatched.join("`, `")));
        }
        out.write_str(&parts.join("; "))
    }
}

fn tensors(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 tensor {one}") } else { format!("{count} tensors {many}") }
}

/// The tensors of a built model by name.
#[derive(Debug, Default)]
pub struct Store {
    /// Without gradients, in the frozen kind.
    pub frozen: BTreeMap<String, Tensor>,
    /// With gradients, float32: what optimizers, clipping and checkpoints take whole.
    pub trained: BTreeMap<String, Tensor>,
}

/// A place in the tree of parameter names, shared by all layers of one build: `&params / "down_blocks" / 0`.
#[derive(Clone)]
pub struct Params {
    path: String,
    build: Rc<Build>,
}

struct Build {
    plan: Plan,
    /// Whether parameters are only named: their tensors have shapes and no memory of their own.
    outline: bool,
    device: Device,
    frozen_kind: Kind,
    state: RefCell<State>,
}

struct State {
    source: Box<dyn Source>,
    store: Store,
    problems: Problems,
    used: Vec<Pattern>,
}

impl Params {
    /// The root. Frozen tensors are kept in `frozen_kind`, trained ones in float32, all on `device`.
    pub fn new(source: impl Source + 'static, plan: Plan, device: Device, frozen_kind: Kind) -> Params {
        let state = State {
            source: Box::new(source),
            store: Store::default(),
            problems: Problems::default(),
            used: Vec::new(),
        };
        let build = Build { plan, outline: false, device, frozen_kind, state: RefCell::new(state) };
        Params { path: String::new(), build: Rc::new(build) }
    }

    /// The root of a model of which only names and shapes are wanted: its tensors take no memory, and it cannot be run.
    pub fn outline() -> Params {
        let state =
            State { source: Box::new(Empty), store: Store::default(), problems: Problems::default(), used: Vec::new() };
        let (plan, device, frozen_kind) = (Plan::random(), Device::Cpu, Kind::Float);
        let build = Build { plan, outline: true, device, frozen_kind, state: RefCell::new(state) };
        Params { path: String::new(), build: Rc::new(build) }
    }

    /// Device that the parameters live on.
    pub fn device(&self) -> Device {
        self.build.device
    }

    /// Whether layers may keep their weights in an order of their own: those of a network that is only used, on the CPU, in a
    /// kind that has such an order.
    pub fn packs(&self) -> bool {
        let Build { plan, outline, device, frozen_kind, .. } = &*self.build;
        let known = match frozen_kind {
            Kind::Float => true,
            Kind::BFloat16 => kernels::orders_bf16(),
            _ => false,
        };
        plan.only_used && !outline && *device == Device::Cpu && known && tch::utils::has_mkldnn()
    }

    /// The parameter `name` at this place, of a norm: float32 in networks that are only used, whatever they compute in.
    pub fn norm_tensor(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let kind = if self.packs() { Kind::Float } else { self.build.frozen_kind };
        self.tensor_in(name, shape, init, kind)
    }

    /// The parameter `name` at this place.
    pub fn tensor(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.tensor_in(name, shape, init, self.build.frozen_kind)
    }

    fn tensor_in(&self, name: &str, shape: &[i64], init: Init, frozen_kind: Kind) -> Tensor {
        let name = self.name(name);
        let trained = self.matches(&self.build.plan.trained, &name);
        let tensor = self.read(&name, shape).unwrap_or_else(|| self.initialise(&name, shape, init));
        self.keep(name, tensor, if trained { None } else { Some(frozen_kind) })
    }

    /// The low-rank pair of the linear layer at this place, if the plan gives it one. `down` starts as N(0, 1/rank) (the
    /// standard deviation) and `up` at zero, so that a new pair changes nothing.
    pub fn lora_pair(&self, in_features: i64, out_features: i64) -> Option<LoraPair> {
        let plan = self.build.plan.lora.as_ref().filter(|plan| self.matches(&plan.targets, &self.path))?;
        let rank = plan.rank;
        let part = |name: &str, shape: [i64; 2], init| {
            let name = self.name(name);
            let tensor = self.read(&name, &shape).unwrap_or_else(|| start(init, &shape));
            self.keep(name, tensor, None)
        };
        Some(LoraPair {
            down: part("lora_A.weight", [rank, in_features], Init::Normal(1.0 / rank as f64)),
            up: part("lora_B.weight", [out_features, rank], Init::Zeros),
            scale: plan.scale,
        })
    }

    /// The trained tensors that were built at this place, in the order of their names.
    pub fn trained_here(&self) -> Vec<Tensor> {
        let inside = self.name("");
        let trained = &self.build.state.borrow().store.trained;
        let here = trained.range(inside.clone()..).take_while(|(name, _)| name.starts_with(&inside));
        here.map(|(_, tensor)| tensor.shallow_clone()).collect()
    }

    /// Ends a build: the tensors, and what the source was short of. Call it on the root when the model stands.
    pub fn finish(self) -> (Store, Problems) {
        let mut state = self.build.state.borrow_mut();
        let plan = &self.build.plan;
        let wanted = plan.trained.iter().chain(plan.lora.iter().flat_map(|lora| &lora.targets));
        let unmatched: Vec<String> =
            wanted.filter(|pattern| !state.used.contains(pattern)).map(Pattern::to_string).collect();
        let mut problems = std::mem::take(&mut state.problems);
        problems.unmatched = unmatched;
        problems.unknown = state.source.left();
        let misshapen = problems.misshapen.iter().map(|(name, ..)| name);
        let named = misshapen.chain(&problems.unknown).chain(&problems.not_finite).next();
        problems.origin = named.and_then(|name| state.source.origin(name));
        (std::mem::take(&mut state.store), problems)
    }

    fn name(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Whether any pattern matches; all that do are noted as used.
    fn matches(&self, patterns: &[Pattern], name: &str) -> bool {
        let matching: Vec<&Pattern> = patterns.iter().filter(|pattern| pattern.matches(name)).collect();
        let used = &mut self.build.state.borrow_mut().used;
        for pattern in &matching {
            if !used.contains(pattern) {
                used.push((*pattern).clone());
            }
        }
        !matching.is_empty()
    }

    fn read(&self, name: &str, shape: &[i64]) -> Option<Tensor> {
        let state = &mut *self.build.state.borrow_mut();
        let finite = state.source.is_finite(name);
        let tensor = state.source.take(name)?;
        if tensor.size() != shape {
            state.problems.misshapen.push((name.to_owned(), shape.to_vec(), tensor.size()));
            return Some(Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
        }
        if !finite.unwrap_or_else(|| all_finite(&tensor)) {
            state.problems.not_finite.push(name.to_owned());
        }
        Some(tensor)
    }

    fn initialise(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        if !self.build.plan.fresh.iter().any(|pattern| pattern.matches(name)) {
            self.build.state.borrow_mut().problems.missing.push(name.to_owned());
            return Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        }
        if self.build.outline { hollow(shape) } else { start(init, shape) }
    }

    /// `frozen` is the kind of a tensor that is not trained. Layers that pack their weights are the only ones to keep them.
    fn keep(&self, name: String, tensor: Tensor, frozen: Option<Kind>) -> Tensor {
        let (trained, kind) = (frozen.is_none(), frozen.unwrap_or(Kind::Float));
        let tensor = no_grad(|| tensor.to_device(self.build.device).to_kind(kind)).set_requires_grad(trained);
        let store = &mut self.build.state.borrow_mut().store;
        if self.packs() {
            return tensor;
        }
        let part = if trained { &mut store.trained } else { &mut store.frozen };
        let before = part.insert(name.clone(), tensor.shallow_clone());
        assert!(before.is_none(), "two layers of the model are both called {name}");
        tensor
    }
}

impl<P: Display> Div<P> for &Params {
    type Output = Params;

    fn div(self, part: P) -> Params {
        Params { path: self.name(&part.to_string()), build: Rc::clone(&self.build) }
    }
}

impl<P: Display> Div<P> for Params {
    type Output = Params;

    fn div(self, part: P) -> Params {
        &self / part
    }
}

/// A tensor of `shape` that takes the memory of one number.
pub fn hollow(shape: &[i64]) -> Tensor {
    Tensor::zeros([] as [i64; 0], (Kind::Float, Device::Cpu)).expand(shape, false)
}

/// A new parameter, drawn on the CPU so that a seed means the same weights on every device.
fn start(init: Init, shape: &[i64]) -> Tensor {
    let options = (Kind::Float, Device::Cpu);
    match init {
        Init::Zeros => Tensor::zeros(shape, options),
        Init::Ones => Tensor::ones(shape, options),
        Init::FanIn(fan_in) => {
            let bound = 1.0 / (fan_in as f64).sqrt();
            Tensor::empty(shape, options).uniform_(-bound, bound)
        }
        Init::Normal(std) => Tensor::empty(shape, options).normal_(0.0, std),
    }
}

/// The sum tells in one pass without a mask; only when it overflows or is NaN is each value looked at.
fn all_finite(tensor: &Tensor) -> bool {
    tensor.numel() == 0
        || tensor.sum(Kind::Float).double_value(&[]).is_finite()
        || tensor.isfinite().all().int64_value(&[]) == 1
}
