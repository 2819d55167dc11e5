//! Which process this is, as whatever started it says in the environment: torchrun, Kubeflow's PyTorchJob, SLURM's `srun`, or
//! [`launch`](super::launch).

use std::str::FromStr;

/// What the environment says and should not.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlaceError {
    /// A variable that has to be there.
    #[error("{name} is not set, though {because} is: all of RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are needed")]
    Missing {
        /// The variable.
        name: &'static str,
        /// The one that asks for it.
        because: &'static str,
    },
    /// A variable that is no number.
    #[error("{name} is `{value}`; a whole number is expected")]
    NotANumber {
        /// The variable.
        name: &'static str,
        /// What it is.
        value: String,
    },
    /// A rank that does not exist.
    #[error("rank {rank} of {world}: ranks are counted from 0")]
    OutOfRange {
        /// This process.
        rank: usize,
        /// How many there are.
        world: usize,
    },
}

/// This process among those that were started together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// Its number on its machine.
    pub local_rank: usize,
    /// Where the store is that they meet in.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether this process holds the store; otherwise another one does, or what started them.
    pub serves: bool,
    /// How often they were started before, with the same store.
    pub restarts: usize,
}

impl Place {
    /// What the environment says; `None` where it says nothing, and this process is alone.
    pub fn from_env() -> Result<Option<Place>, PlaceError> {
        Place::find(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`Place::from_env`], with `variable` for the environment.
    ///
    /// torchrun and PyTorchJob set `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`, torchrun `LOCAL_RANK` too. `srun` sets
    /// variables of its own for each step, of which a step of one process, and a batch script, means one process alone.
    pub fn find(variable: impl Fn(&'static str) -> Option<String>) -> Result<Option<Place>, PlaceError> {
        let place = if variable("RANK").is_some() {
            Some(Place::of_torch(&variable)?)
        } else if variable("SLURM_STEP_NUM_TASKS").is_some_and(|tasks| tasks != "1") {
            Some(Place::of_slurm(&variable)?)
        } else {
            None
        };
        match place {
            Some(Place { rank, world, .. }) if rank >= world => Err(PlaceError::OutOfRange { rank, world }),
            place => Ok(place),
        }
    }

    fn of_torch(variable: &impl Fn(&'static str) -> Option<String>) -> Result<Place, PlaceError> {
        let needed = |name| variable(name).ok_or(PlaceError::Missing { name, because: "RANK" });
        let rank = number("RANK", &needed("RANK")?)?;
        let restarts = variable("TORCHELASTIC_RESTART_COUNT").unwrap_or("0".into());
        Ok(Place {
            rank,
            world: number("WORLD_SIZE", &needed("WORLD_SIZE")?)?,
            // A PyTorchJob has one process in each of its containers.
            local_rank: number("LOCAL_RANK", &variable("LOCAL_RANK").unwrap_or("0".into()))?,
            host: needed("MASTER_ADDR")?,
            port: number("MASTER_PORT", &needed("MASTER_PORT")?)?,
            serves: rank == 0 && variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() != Some("True"),
            restarts: number("TORCHELASTIC_RESTART_COUNT", &restarts)?,
        })
    }

    fn of_slurm(variable: &impl Fn(&'static str) -> Option<String>) -> Result<Place, PlaceError> {
        let needed = |name| variable(name).ok_or(PlaceError::Missing { name, because: "SLURM_STEP_NUM_TASKS" });
        let rank = number("SLURM_PROCID", &needed("SLURM_PROCID")?)?;
        let nodes = variable("SLURM_STEP_NODELIST").or_else(|| variable("SLURM_JOB_NODELIST"));
        let nodes = nodes.ok_or(PlaceError::Missing { name: "SLURM_JOB_NODELIST", because: "SLURM_STEP_NUM_TASKS" })?;
        let job: u64 = number("SLURM_JOB_ID", &needed("SLURM_JOB_ID")?)?;
        Ok(Place {
            rank,
            world: number("SLURM_STEP_NUM_TASKS", &needed("SLURM_STEP_NUM_TASKS")?)?,
            local_rank: number("SLURM_LOCALID", &needed("SLURM_LOCALID")?)?,
            host: variable("MASTER_ADDR").unwrap_or_else(|| first_host(&nodes)),
            port: match variable("MASTER_PORT") {
                Some(port) => number("MASTER_PORT", &port)?,
                // One that other jobs on the same machines are unlikely to have.
                None => 15_000 + (job % 10_000) as u16,
            },
            serves: rank == 0,
            restarts: 0,
        })
    }

    /// Keys of `group` in the store: others after a restart, as the store may outlive it.
    pub(super) fn prefix(&self, group: &str) -> String {
        format!("animatediff/{}/{group}", self.restarts)
    }
}

fn number<T: FromStr>(name: &'static str, value: &str) -> Result<T, PlaceError> {
    value.parse().map_err(|_| PlaceError::NotANumber { name, value: value.to_owned() })
}

/// The first of SLURM's list of nodes: `gpu[003-005,9],login` begins with `gpu003`.
fn first_host(nodes: &str) -> String {
    let end = nodes.find([',', '[']).unwrap_or(nodes.len());
    let (name, rest) = nodes.split_at(end);
    let numbers = rest.strip_prefix('[').unwrap_or_default();
    let end = numbers.find([',', '-', ']']).unwrap_or(numbers.len());
    let after = rest.split_once(']').map_or("", |(_, after)| after);
    let after = &after[..after.find([',', '[']).unwrap_or(after.len())];
    format!("{name}{}{after}", &numbers[..end])
}
