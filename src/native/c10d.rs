//! libtorch's c10d: where processes find one another, and what they then do together.

use std::{
    ffi::{CString, c_char, c_int},
    path::PathBuf,
    ptr,
    time::Duration,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use tch::{Kind, Tensor};

use super::{ffi, pointers, taken};

/// What c10d says when something fails: nearly always that another process is gone or cannot be reached.
pub type Answer<T> = Result<T, String>;

/// The library with NCCL's group, as it is called beside the program.
const NCCL: &str = "libanimatediff_nccl.so";

/// The TCP store that processes meet in: a client, or the server itself, which is gone with this value.
#[derive(Debug)]
pub struct Store {
    handle: *mut ffi::Store,
    port: u16,
}

impl Store {
    /// Reaches the store at `host:port`, for `timeout` at most.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Answer<Store> {
        Store::open(host, port, false, timeout)
    }

    /// Holds the store at `port` of this machine; 0 takes any that is free.
    pub fn serve(host: &str, port: u16, timeout: Duration) -> Answer<Store> {
        Store::open(host, port, true, timeout)
    }

    fn open(host: &str, port: u16, serve: bool, timeout: Duration) -> Answer<Store> {
        let host = text(host)?;
        let (mut handle, mut bound) = (ptr::null_mut(), 0);
        // SAFETY: the text and both places to write to outlive the call.
        taken(unsafe { ffi::ad_store_open(host.as_ptr(), port, serve, millis(timeout), &mut handle, &mut bound) })?;
        Ok(Store { handle, port: bound })
    }

    /// The port it listens at.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the handle came from `ad_store_open`, and is given back once.
        unsafe { ffi::ad_store_free(self.handle) }
    }
}

/// What a group is made of.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    /// Keeps this group's keys apart from those of others in the same store.
    pub prefix: &'a str,
    /// Number of this process, from 0.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// How long any of them is waited for.
    pub timeout: Duration,
}

/// Which of this machine's addresses Gloo speaks from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// What the host's name resolves to.
    Default,
    /// That of a network interface, such as `eth0`.
    Interface(String),
    /// This one.
    Literal(String),
}

/// Processes that do the same things in the same order. Every call waits for all of them.
#[derive(Debug)]
pub struct Group {
    handle: *mut ffi::Group,
    world: usize,
}

impl Group {
    /// Of tensors on the CPU.
    pub fn gloo(store: &Store, members: Members, address: &Address) -> Answer<Group> {
        let (interface, literal) = match address {
            Address::Default => ("", ""),
            Address::Interface(name) => (name.as_str(), ""),
            Address::Literal(address) => ("", address.as_str()),
        };
        let (interface, literal) = (text(interface)?, text(literal)?);
        Group::open(members, |prefix, rank, world, timeout, out| {
            // SAFETY: the store is alive, and the texts and the place to write to outlive the call.
            unsafe {
                let (interface, literal) = (interface.as_ptr(), literal.as_ptr());
                ffi::ad_group_gloo(store.handle, prefix, rank, world, interface, literal, timeout, out)
            }
        })
    }

    /// Of tensors on CUDA device `device`, of which every process of a machine has its own.
    pub fn nccl(store: &Store, members: Members, device: usize) -> Answer<Group> {
        let library = nccl()?;
        // SAFETY: the library is this program's own, and gives the function this type.
        let open = unsafe { library.get::<ffi::OpenNccl>(b"ad_group_nccl\0") };
        let open = *open.map_err(|error| format!("{NCCL} is of another version: {error}"))?;
        // Its code runs as long as the group does.
        std::mem::forget(library);
        Group::open(members, |prefix, rank, world, timeout, out| {
            // SAFETY: as in `gloo`.
            unsafe { open(store.handle, prefix, rank, world, device as c_int, timeout, out) }
        })
    }

    fn open(
        members: Members,
        call: impl FnOnce(*const c_char, c_int, c_int, i64, *mut *mut ffi::Group) -> *const c_char,
    ) -> Answer<Group> {
        let Members { prefix, rank, world, timeout } = members;
        let (prefix, mut handle) = (text(prefix)?, ptr::null_mut());
        taken(call(prefix.as_ptr(), rank as c_int, world as c_int, millis(timeout), &mut handle))?;
        Ok(Group { handle, world })
    }

    /// Replaces `tensor` by the sum over all processes; the same bits everywhere.
    pub fn sum(&self, tensor: &mut Tensor) -> Answer<()> {
        // SAFETY: handle and tensor are alive.
        taken(unsafe { ffi::ad_group_all_reduce(self.handle, tensor.as_mut_ptr(), false) })
    }

    /// Replaces `tensor` by the largest values of all processes.
    pub fn max(&self, tensor: &mut Tensor) -> Answer<()> {
        // SAFETY: as in `sum`.
        taken(unsafe { ffi::ad_group_all_reduce(self.handle, tensor.as_mut_ptr(), true) })
    }

    /// Replaces `tensor` by that of process 0.
    pub fn broadcast(&self, tensor: &mut Tensor) -> Answer<()> {
        // SAFETY: as in `sum`.
        taken(unsafe { ffi::ad_group_broadcast(self.handle, tensor.as_mut_ptr()) })
    }

    /// The tensors of all processes, which have one shape, `[world, …]`.
    pub fn all_gather(&self, tensor: &Tensor) -> Answer<Tensor> {
        let shape = [&[self.world as i64], &tensor.size()[..]].concat();
        let mut out = Tensor::zeros(shape, (tensor.kind(), tensor.device()));
        // SAFETY: as in `sum`.
        taken(unsafe { ffi::ad_group_all_gather(self.handle, tensor.as_ptr(), out.as_mut_ptr()) })?;
        Ok(out)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the handle came from one of the constructors, and is given back once.
        unsafe { ffi::ad_group_free(self.handle) }
    }
}

/// Gradients that are summed over a group's processes while the backward pass runs.
#[derive(Debug)]
pub struct Buckets {
    handle: *mut std::ffi::c_void,
    count: usize,
}

impl Buckets {
    /// For `parameters`, float32 and on one device, in flat buckets of about `bytes`.
    pub fn new(group: &Group, parameters: &[Tensor], bytes: usize) -> Buckets {
        assert!(parameters.iter().all(|parameter| parameter.kind() == Kind::Float), "trained tensors are float32");
        let pointers = pointers(&parameters.iter().collect::<Vec<_>>());
        let mut handle = ptr::null_mut();
        // SAFETY: the pointers are those of live tensors, of which the shim keeps references of its own, as it does of the group.
        super::check(unsafe {
            ffi::ad_buckets_new(group.handle, pointers.as_ptr(), pointers.len(), bytes as i64, &mut handle)
        });
        Buckets { handle, count: parameters.len() }
    }

    /// An update begins: all gradients are zero.
    pub fn begin(&self) {
        // SAFETY: the handle is alive.
        super::check(unsafe { ffi::ad_buckets_begin(self.handle) });
    }

    /// The backward pass that comes is the last of the update: what it is done with can be summed.
    pub fn arm(&self) {
        // SAFETY: the handle is alive.
        unsafe { ffi::ad_buckets_arm(self.handle) }
    }

    /// Adds gradients, one for each parameter, that come from elsewhere than a backward pass of all of them; an undefined one
    /// is none.
    pub fn add(&self, grads: &[Tensor]) {
        assert_eq!(grads.len(), self.count);
        let pointers = pointers(&grads.iter().collect::<Vec<_>>());
        // SAFETY: as in `new`.
        super::check(unsafe { ffi::ad_buckets_add(self.handle, pointers.as_ptr(), pointers.len()) });
    }

    /// Sums what was not summed yet, and waits: now every parameter has the sum over all processes for its gradient, or none
    /// where no process's loss reached it.
    pub fn finish(&self) -> Answer<()> {
        // SAFETY: the handle is alive.
        taken(unsafe { ffi::ad_buckets_finish(self.handle) })
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        // SAFETY: the handle came from `ad_buckets_new`, and is given back once.
        unsafe { ffi::ad_buckets_free(self.handle) }
    }
}

/// The library with NCCL's group: beside the program, or where it was built.
///
/// # Errors
/// Why there is none, and how to have one.
pub fn nccl_library() -> Answer<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(NCCL)));
    let built = option_env!("ANIMATEDIFF_NCCL").map(PathBuf::from);
    beside.into_iter().chain(built).find(|path| path.is_file()).ok_or_else(|| {
        format!(
            "{NCCL} is not beside the program: it was built without CUDA's headers \
             (ANIMATEDIFF_LIBTORCH=cuda make build installs and uses them)"
        )
    })
}

fn nccl() -> Answer<Library> {
    let path = nccl_library()?;
    // SAFETY: the library is this program's own; loading it runs nothing but the constructors of libtorch's headers.
    unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| format!("{}: {error}", path.display()))
}

fn text(text: &str) -> Answer<CString> {
    CString::new(text).map_err(|_| format!("{text:?} has a zero byte in it"))
}

fn millis(time: Duration) -> i64 {
    time.as_millis().min(i64::MAX as u128) as i64
}
