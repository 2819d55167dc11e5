//! Where the gradients of an update are gathered: in the trained tensors, or in buckets that all processes sum.

use std::rc::Rc;

use tch::Tensor;

use crate::{
    dist::{Comm, DistError},
    native::{self, Buckets},
};

/// The gradients of the tensors that are trained.
#[derive(Debug)]
pub struct Gradients {
    params: Vec<Tensor>,
    comm: Rc<Comm>,
    /// Where there are several processes.
    buckets: Option<Buckets>,
}

impl Gradients {
    /// Of `params`, in the order in which a forward pass meets them, as far as that is known.
    pub fn new(params: Vec<Tensor>, comm: &Rc<Comm>) -> Gradients {
        Gradients { buckets: comm.buckets(&params), params, comm: Rc::clone(comm) }
    }

    /// The tensors.
    pub fn params(&self) -> &[Tensor] {
        &self.params
    }

    /// An update begins: there are none yet.
    pub fn begin(&mut self) {
        match &self.buckets {
            Some(buckets) => buckets.begin(),
            None => self.params.iter_mut().for_each(Tensor::zero_grad),
        }
    }

    /// The pass that comes is the last of the update: what it is done with may be summed over the processes while it goes on.
    pub fn last_pass(&self) {
        if let Some(buckets) = &self.buckets {
            buckets.arm();
        }
    }

    /// Adds gradients that were computed beside the tensors, one for each; an undefined one is none.
    pub fn add(&self, grads: &[Tensor]) {
        match &self.buckets {
            Some(buckets) => buckets.add(grads),
            None => native::add_grads(&self.params, grads),
        }
    }

    /// Waits until they are those of all processes.
    pub fn finish(&self) -> Result<(), DistError> {
        self.buckets.as_ref().map_or(Ok(()), |buckets| self.comm.finish(buckets))
    }
}
