//! One layer's delta: how it is put together from the factors of a file.
//!
//! Pairs are kohya's and everybody's; the other forms are LyCORIS' (LoHa, LoKr, and Tucker decompositions of convolutions).

use std::collections::BTreeMap;

use tch::Tensor;

use crate::weights::error::WeightsError;

/// Factors that are read, each with whether it is a part of a form that is not.
const FACTORS: [(&str, Option<&str>); 23] = [
    ("lora_A.weight", None),
    ("lora_B.weight", None),
    ("lora_mid.weight", None),
    ("alpha", None),
    ("hada_w1_a", None),
    ("hada_w1_b", None),
    ("hada_w2_a", None),
    ("hada_w2_b", None),
    ("hada_t1", None),
    ("hada_t2", None),
    ("lokr_w1", None),
    ("lokr_w1_a", None),
    ("lokr_w1_b", None),
    ("lokr_w2", None),
    ("lokr_w2_a", None),
    ("lokr_w2_b", None),
    ("lokr_t2", None),
    ("diff", None),
    ("diff_b", Some("a difference of biases")),
    ("dora_scale", Some("DoRA")),
    ("on_input", Some("IA³")),
    ("oft_blocks", Some("OFT")),
    ("oft_diag", Some("OFT")),
];

/// A change of one layer's weight: `scale` times what its form makes.
#[derive(Debug)]
pub struct Delta {
    form: Form,
    scale: f64,
}

/// How a delta is kept.
#[derive(Debug)]
pub enum Form {
    /// `up · down`: `down` is `[rank, in]` or `[rank, in, k, k]`, `up` `[out, rank]` or `[out, rank, 1, 1]`. With `mid`
    /// `[rank, rank, k, k]`, a Tucker decomposition of a convolution.
    Pair {
        /// First factor.
        down: Tensor,
        /// Second factor.
        up: Tensor,
        /// Core of a Tucker decomposition.
        mid: Option<Tensor>,
    },
    /// LoHa: the product, element by element, of two such products.
    Hadamard([Product; 2]),
    /// LoKr: the Kronecker product of two matrices, of which the second may be a convolution's.
    Kronecker([Product; 2]),
    /// The difference itself.
    Full(Tensor),
}

/// A matrix, or two or three whose product it is.
#[derive(Debug)]
pub enum Product {
    /// The matrix.
    Whole(Tensor),
    /// `a · b`.
    Two(Tensor, Tensor),
    /// `a` and `b` on either side of a Tucker core: `Σ core[p, q, …] · a[p, o] · b[q, i]`.
    Three(Tensor, Tensor, Tensor),
}

impl Product {
    fn value(&self) -> Tensor {
        match self {
            Product::Whole(tensor) => tensor.shallow_clone(),
            Product::Two(a, b) => a.matmul(&flat(b)).reshape(self.size().as_slice()),
            Product::Three(core, a, b) => tucker(core, &a.transpose(0, 1), b),
        }
    }

    /// Its shape, without computing it.
    fn size(&self) -> Vec<i64> {
        match self {
            Product::Whole(tensor) => tensor.size(),
            Product::Two(a, b) => [&a.size()[..1], &b.size()[1..]].concat(),
            Product::Three(core, a, b) => [&[a.size()[1], b.size()[1]], &core.size()[2..]].concat(),
        }
    }

    fn rank(&self) -> Option<i64> {
        match self {
            Product::Whole(_) => None,
            Product::Two(_, b) | Product::Three(_, _, b) => Some(b.size()[0]),
        }
    }

    /// Whether the parts fit together.
    fn is_sound(&self) -> bool {
        match self {
            Product::Whole(tensor) => tensor.dim() >= 2,
            Product::Two(a, b) => a.dim() == 2 && b.dim() >= 2 && a.size()[1] == b.size()[0],
            Product::Three(core, a, b) => {
                core.dim() >= 2 && a.dim() == 2 && b.dim() == 2 && core.size()[..2] == [a.size()[0], b.size()[0]]
            }
        }
    }
}

impl Form {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Form::Pair { mid: None, .. } => "LoRA",
            Form::Pair { .. } => "LoCon with a Tucker core",
            Form::Hadamard(_) => "LoHa",
            Form::Kronecker(_) => "LoKr",
            Form::Full(_) => "full difference",
        }
    }

    /// Rows and columns of the delta as a matrix; `None` when its factors do not fit together.
    pub fn size(&self) -> Option<(i64, i64)> {
        let matrix = |size: &[i64]| Some((*size.first()?, size[1..].iter().product()));
        match self {
            Form::Pair { down, up, mid: None } => {
                let (up, down) = (matrix(&up.size())?, matrix(&down.size())?);
                (up.1 == down.0).then_some((up.0, down.1))
            }
            Form::Pair { down, up, mid: Some(mid) } => {
                let ((out, r), (q, input), mid) = (matrix(&up.size())?, matrix(&down.size())?, mid.size());
                (mid.len() >= 2 && mid[0] == r && mid[1] == q).then(|| (out, input * mid[2..].iter().product::<i64>()))
            }
            Form::Hadamard(products) => {
                let sound = products.iter().all(Product::is_sound);
                let sizes = sound.then(|| [products[0].size(), products[1].size()])?;
                (sizes[0] == sizes[1]).then(|| matrix(&sizes[0]))?
            }
            Form::Kronecker(products) => {
                let sound = products.iter().all(Product::is_sound) && products[0].size().len() == 2;
                let sizes = sound.then(|| [products[0].size(), products[1].size()])?;
                let (first, second) = (matrix(&sizes[0])?, matrix(&sizes[1])?);
                Some((first.0 * second.0, first.1 * second.1))
            }
            Form::Full(tensor) => matrix(&tensor.size()),
        }
    }
}

impl Delta {
    /// From the factors of one layer.
    pub(super) fn new(
        mut factors: BTreeMap<&'static str, Tensor>,
        origin: &str,
        path: &str,
    ) -> Result<Delta, WeightsError> {
        let refused = FACTORS.iter().find_map(|(name, form)| form.filter(|_| factors.contains_key(name)));
        if let Some(form) = refused {
            return Err(WeightsError::Form { origin: origin.into(), path: path.into(), form });
        }
        let wrong = |reason: String| WeightsError::Factor { origin: origin.into(), path: path.into(), reason };
        let alpha = match factors.remove("alpha") {
            Some(alpha) if alpha.numel() == 1 => Some(alpha.double_value(&[])),
            Some(alpha) => return Err(wrong(format!("its alpha has {} values, and one is expected", alpha.numel()))),
            None => None,
        };
        for (name, factor) in &factors {
            if factor.dim() < 2 || factor.numel() == 0 {
                return Err(wrong(format!("its `{name}` is {:?}, and a matrix is expected", factor.size())));
            }
        }
        let form = form(&mut factors);
        let half = || WeightsError::HalfPair { origin: origin.into(), path: path.into() };
        let form = form.filter(|_| factors.is_empty()).ok_or_else(half)?;
        if form.size().is_none() {
            let wrong = format!("the factors of its {} do not fit together", form.name());
            return Err(WeightsError::Factor { origin: origin.into(), path: path.into(), reason: wrong });
        }
        // An alpha of 0 stands for none, as in kohya's scripts; so does one beside a difference that has no rank.
        let scale = match (alpha, rank(&form)) {
            (Some(alpha), Some(rank)) if alpha != 0.0 && rank > 0 => alpha / rank as f64,
            _ => 1.0,
        };
        Ok(Delta { form, scale })
    }

    /// A pair whose scale is in it.
    pub(super) fn of_pair(down: Tensor, up: Tensor) -> Delta {
        Delta { form: Form::Pair { down, up, mid: None }, scale: 1.0 }
    }

    /// What multiplies the product: alpha over rank.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// How it is kept.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// The rank of a pair.
    pub fn rank(&self) -> Option<i64> {
        match &self.form {
            Form::Pair { mid: None, .. } => rank(&self.form),
            _ => None,
        }
    }

    /// `down` and `up` with the scale folded in, of a delta that is a pair.
    pub fn pair(&self) -> Option<(Tensor, Tensor)> {
        match &self.form {
            Form::Pair { down, up, mid: None } if self.scale == 1.0 => Some((down.shallow_clone(), up.shallow_clone())),
            Form::Pair { down, up, mid: None } => Some((down.shallow_clone(), up * self.scale)),
            _ => None,
        }
    }

    /// The delta before its scale, as a matrix or with a kernel's axes; its factors must fit together.
    pub fn product(&self) -> Tensor {
        match &self.form {
            Form::Pair { down, up, mid: None } => flat(up).matmul(&flat(down)),
            Form::Pair { down, up, mid: Some(mid) } => tucker(mid, &flat(up), &flat(down)),
            Form::Hadamard([first, second]) => first.value() * second.value(),
            Form::Kronecker([first, second]) => {
                let (first, second) = (first.value(), second.value());
                let ones = vec![1; second.dim() - first.dim()];
                let first = first.reshape([first.size(), ones].concat());
                first.contiguous().kron(&second.contiguous())
            }
            Form::Full(tensor) => tensor.shallow_clone(),
        }
    }

    pub(super) fn scaled(&self, factor: f64) -> Delta {
        Delta { form: self.form.shallow_clone(), scale: self.scale * factor }
    }
}

impl Form {
    fn shallow_clone(&self) -> Form {
        let product = |product: &Product| match product {
            Product::Whole(a) => Product::Whole(a.shallow_clone()),
            Product::Two(a, b) => Product::Two(a.shallow_clone(), b.shallow_clone()),
            Product::Three(a, b, c) => Product::Three(a.shallow_clone(), b.shallow_clone(), c.shallow_clone()),
        };
        match self {
            Form::Pair { down, up, mid } => Form::Pair {
                down: down.shallow_clone(),
                up: up.shallow_clone(),
                mid: mid.as_ref().map(Tensor::shallow_clone),
            },
            Form::Hadamard(products) => Form::Hadamard(products.each_ref().map(product)),
            Form::Kronecker(products) => Form::Kronecker(products.each_ref().map(product)),
            Form::Full(tensor) => Form::Full(tensor.shallow_clone()),
        }
    }
}

/// The form that the factors make; those that it uses are taken.
fn form(factors: &mut BTreeMap<&'static str, Tensor>) -> Option<Form> {
    if let Some(difference) = factors.remove("diff") {
        return Some(Form::Full(difference));
    }
    if let Some(up) = factors.remove("lora_B.weight") {
        let down = factors.remove("lora_A.weight")?;
        return Some(Form::Pair { down, up, mid: factors.remove("lora_mid.weight") });
    }
    if let Some(first) = product(factors, ["hada_w1", "hada_w1_a", "hada_w1_b", "hada_t1"]) {
        return Some(Form::Hadamard([first, product(factors, ["hada_w2", "hada_w2_a", "hada_w2_b", "hada_t2"])?]));
    }
    let first = product(factors, ["lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_t1"])?;
    Some(Form::Kronecker([first, product(factors, ["lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"])?]))
}

fn product(factors: &mut BTreeMap<&'static str, Tensor>, [whole, a, b, core]: [&str; 4]) -> Option<Product> {
    if let Some(whole) = factors.remove(whole) {
        return Some(Product::Whole(whole));
    }
    let (a, b) = (factors.remove(a)?, factors.remove(b)?);
    Some(match factors.remove(core) {
        Some(core) => Product::Three(core, a, b),
        None => Product::Two(a, b),
    })
}

/// What alpha is divided by.
fn rank(form: &Form) -> Option<i64> {
    match form {
        Form::Pair { down, .. } => down.size().first().copied(),
        Form::Hadamard([first, _]) => first.rank(),
        Form::Kronecker([first, second]) => second.rank().or_else(|| first.rank()),
        Form::Full(_) => None,
    }
}

/// All axes but the first as one.
fn flat(tensor: &Tensor) -> Tensor {
    tensor.flatten(1, -1)
}

/// `Σ core[p, q, …] · up[o, p] · down[q, i]` as `[o, i, …]`.
fn tucker(core: &Tensor, up: &Tensor, down: &Tensor) -> Tensor {
    Tensor::einsum("pq...,op,qi->oi...", &[core, up, down], None::<i64>)
}

/// The path of a layer and the factor, in the name of a low-rank tensor.
pub(super) fn split_name(name: &str) -> Option<(&str, &'static str)> {
    FACTORS.iter().find_map(|(factor, _)| Some((name.strip_suffix(factor)?.strip_suffix('.')?, *factor)))
}
