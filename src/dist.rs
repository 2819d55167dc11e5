//! Several processes that train one model: libtorch's c10d, as far as a training needs it.
//!
//! Each process is a *rank* of a *world*. Rank 0 decides and writes; the others follow. [`Place`] says which one this process is,
//! in the words of whatever started it; [`launch`] starts some on this machine. Knows tensors and values; knows nothing of models,
//! training or files.
//!
//! Numbers go through Gloo in host memory; gradients on CUDA through NCCL. A process that ends is an error in all others at once.

pub mod launch;
mod place;

pub use place::{Place, PlaceError};

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tch::{Device, Kind, Tensor};

use crate::native::{Address, Buckets, Group, Members, Store};

/// Bytes of gradients that are summed together: large enough for the network, small enough to be done before the backward pass is.
const BUCKET: usize = 25 << 20;

/// What another process did, or the network.
#[derive(Debug, thiserror::Error)]
pub enum DistError {
    /// The processes do not find one another.
    #[error("rank {rank} of {world} cannot join the others through {store}: {reason}")]
    Join {
        /// This process.
        rank: usize,
        /// How many there should be.
        world: usize,
        /// Address of the store.
        store: String,
        /// In c10d's words.
        reason: String,
    },
    /// Something that all do together did not come about.
    #[error("another process is gone or cannot be reached; its own message says why ({0})")]
    Gone(String),
    /// Rank 0 failed at what it does for all.
    #[error("rank 0: {0}")]
    First(String),
    /// Something differs that has to be the same everywhere.
    #[error("{what} of rank {rank} differs from that of rank 0; {mend}")]
    Differs {
        /// What it is.
        what: String,
        /// The first rank that has another.
        rank: usize,
        /// What to do.
        mend: &'static str,
    },
}

fn gone(reason: String) -> DistError {
    DistError::Gone(reason.lines().next().unwrap_or_default().to_owned())
}

/// This process among those that work together.
#[derive(Debug, Default)]
pub struct Comm {
    team: Option<Team>,
}

#[derive(Debug)]
struct Team {
    place: Place,
    timeout: Duration,
    /// The groups hold on to it.
    store: Store,
    host: Group,
    /// With NCCL, where tensors are on CUDA.
    device: Option<Group>,
}

impl Comm {
    /// The only process.
    pub fn solo() -> Comm {
        Comm::default()
    }

    /// Joins the others, for each of whom it waits `timeout` at most, now and later.
    ///
    /// # Errors
    /// When not all come, or the store cannot be reached.
    pub fn join(place: Place, timeout: Duration) -> Result<Comm, DistError> {
        if place.world == 1 {
            return Ok(Comm::solo());
        }
        let (host, port) = (&place.host, place.port);
        let failed = |reason: String| DistError::Join {
            rank: place.rank,
            world: place.world,
            store: format!("{host}:{port}"),
            reason: reason.lines().next().unwrap_or_default().to_owned(),
        };
        let store = if place.serves { Store::serve(host, port, timeout) } else { Store::connect(host, port, timeout) };
        let store = store.map_err(failed)?;
        let prefix = place.prefix("host");
        let members = Members { prefix: &prefix, rank: place.rank, world: place.world, timeout };
        let host = Group::gloo(&store, members, &address(&place.host)).map_err(failed)?;
        Ok(Comm { team: Some(Team { place, timeout, store, host, device: None }) })
    }

    /// From here on, tensors on `device` can be summed, too.
    ///
    /// # Errors
    /// When NCCL cannot be had.
    pub fn on(mut self, device: Device) -> Result<Comm, DistError> {
        if let (Some(team), Device::Cuda(index)) = (&mut self.team, device) {
            let prefix = team.place.prefix("device");
            let Place { rank, world, .. } = team.place;
            let members = Members { prefix: &prefix, rank, world, timeout: team.timeout };
            team.device = Some(Group::nccl(&team.store, members, index).map_err(gone)?);
        }
        Ok(self)
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.team.as_ref().map_or(0, |team| team.place.rank)
    }

    /// How many processes there are.
    pub fn world(&self) -> usize {
        self.team.as_ref().map_or(1, |team| team.place.world)
    }

    /// Number of this process among those of its machine: of the GPU that is its own. None where it is the only one.
    pub fn local_rank(&self) -> Option<usize> {
        self.team.as_ref().map(|team| team.place.local_rank)
    }

    /// Whether this is the process that decides and writes.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The sum of all processes' `value`.
    pub fn sum(&self, value: f64) -> Result<f64, DistError> {
        let Some(team) = &self.team else { return Ok(value) };
        let mut tensor = Tensor::from(value);
        team.host.sum(&mut tensor).map_err(gone)?;
        Ok(tensor.double_value(&[]))
    }

    /// The largest of all processes' `values`, one by one.
    pub fn max<const N: usize>(&self, values: [i64; N]) -> Result<[i64; N], DistError> {
        let Some(team) = &self.team else { return Ok(values) };
        let mut tensor = Tensor::from_slice(&values);
        team.host.max(&mut tensor).map_err(gone)?;
        Ok(std::array::from_fn(|index| tensor.int64_value(&[index as i64])))
    }

    /// What `decide` gives in rank 0, for all. An error there is one everywhere.
    pub fn decide<T: Serialize + DeserializeOwned>(
        &self,
        decide: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let Some(team) = &self.team else { return decide() };
        if !self.is_first() {
            let bytes = team.receive()?;
            let decided: Result<T, String> = serde_json::from_slice(&bytes).expect("rank 0 runs the same program");
            return Ok(decided.map_err(DistError::First)?);
        }
        let decided = decide();
        let told = decided.as_ref().map_err(|error| format!("{error:#}"));
        team.send(&serde_json::to_vec(&told).expect("plain values"))?;
        decided
    }

    /// Everybody's `value`, in the order of the ranks.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, value: T) -> Result<Vec<T>, DistError> {
        let Some(team) = &self.team else { return Ok(vec![value]) };
        let own = serde_json::to_vec(&value).expect("plain values");
        let [longest] = self.max([own.len() as i64])?;
        let mut padded = own.clone();
        padded.resize(longest as usize, b' ');
        let all = team.host.all_gather(&Tensor::from_slice(&padded)).map_err(gone)?;
        let parse = |rank| {
            let bytes = Vec::<u8>::try_from(all.get(rank)).expect("bytes");
            serde_json::from_slice(&bytes).expect("all run the same program")
        };
        Ok((0..self.world() as i64).map(parse).collect())
    }

    /// Everybody's `tensor`, in host memory and of one shape, in the order of the ranks.
    pub fn gather_tensors(&self, tensor: &Tensor) -> Result<Vec<Tensor>, DistError> {
        let Some(team) = &self.team else { return Ok(vec![tensor.shallow_clone()]) };
        Ok(team.host.all_gather(&tensor.contiguous()).map_err(gone)?.unbind(0))
    }

    /// Replaces `tensor` by that of rank 0.
    pub fn broadcast(&self, tensor: &Tensor) -> Result<(), DistError> {
        let Some(team) = &self.team else { return Ok(()) };
        // A handle to the same tensor; detached, as what is trained must not be written to with gradients on.
        let group =
            if tensor.device().is_cuda() { team.device.as_ref().expect("`on` this device") } else { &team.host };
        group.broadcast(&mut tensor.detach()).map_err(gone)
    }

    /// Buckets for the gradients of `parameters`, which are on one device; none where there is nobody to sum them with.
    pub fn buckets(&self, parameters: &[Tensor]) -> Option<Buckets> {
        let team = self.team.as_ref()?;
        let on_cuda = parameters.first().is_some_and(|tensor| tensor.device().is_cuda());
        let group = if on_cuda { team.device.as_ref().expect("`on` this device") } else { &team.host };
        Some(Buckets::new(group, parameters, BUCKET))
    }

    /// Waits for the sums of `buckets`.
    pub fn finish(&self, buckets: &Buckets) -> Result<(), DistError> {
        buckets.finish().map_err(gone)
    }

    /// Whether `value`, the `what` of a run, is the same in all processes.
    ///
    /// # Errors
    /// [`DistError::Differs`], in all processes.
    pub fn check_equal(&self, what: &str, value: &[u8], mend: &'static str) -> Result<(), DistError> {
        if self.team.is_none() {
            return Ok(());
        }
        let all = self.gather(blake3::hash(value).to_hex().to_string())?;
        match all.iter().position(|hash| *hash != all[0]) {
            Some(rank) => Err(DistError::Differs { what: what.to_owned(), rank, mend }),
            None => Ok(()),
        }
    }
}

impl Team {
    /// Bytes of rank 0, for all others.
    fn send(&self, bytes: &[u8]) -> Result<(), DistError> {
        self.host.broadcast(&mut Tensor::from(bytes.len() as i64)).map_err(gone)?;
        self.host.broadcast(&mut Tensor::from_slice(bytes)).map_err(gone)
    }

    /// What rank 0 sends.
    fn receive(&self) -> Result<Vec<u8>, DistError> {
        let mut length = Tensor::from(0i64);
        self.host.broadcast(&mut length).map_err(gone)?;
        let mut bytes = Tensor::zeros([length.int64_value(&[])], (Kind::Uint8, Device::Cpu));
        self.host.broadcast(&mut bytes).map_err(gone)?;
        Ok(Vec::try_from(bytes).expect("bytes"))
    }
}

/// Where Gloo speaks from: PyTorch's variable decides; processes of one machine need no network.
fn address(store: &str) -> Address {
    match std::env::var("GLOO_SOCKET_IFNAME") {
        Ok(names) if !names.is_empty() => Address::Interface(names.split(',').next().unwrap_or_default().to_owned()),
        _ if matches!(store, "127.0.0.1" | "localhost" | "::1") => Address::Literal(store.to_owned()),
        _ => Address::Default,
    }
}
