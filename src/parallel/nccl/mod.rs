//! The collectives of ranks on GPUs, through NCCL, on one node or several.
//!
//! A group gets its communicator when it is opened, or when its first tensor on a GPU comes; the ranks
//! hand each other its id by their threads' [`Hub`], which reaches those of other nodes too. Collectives
//! are put into streams and wait for nothing on the host.
//! Those beside which the rank computes go into a stream of the group's own, the others into the
//! stream of the device's kernels; either way a group's run in the order in which they were called.
//!
//! Every channel (from a rank, to a rank, with a tag) has a communicator and streams of its own:
//! whatever the order in which a schedule sends and receives, no message waits for another but the one
//! before it on the same channel, so that pipelines cannot block each other.
//!
//! Two rules keep ranks from waiting in a circle. Everything is put into streams by the rank's own
//! thread, in the order of its work: a device may take streams one after the other, and what waits
//! for a peer must not stand before what the peer waits for. And communicators are opened, channels
//! connected too, before that work: it takes memory of the device, for which CUDA waits until no copy
//! to the host is under way there, and a copy may wait for the peer. (NCCL connects the ranks of a
//! collective at its first call; every rank is there then, in the same place of its work.)

mod communicator;
mod point_to_point;

use super::group::{Collective, Group, Like, Pending};
use super::threads::{Channel, GroupKind, Hub, ThreadGroup};
use crate::kernels::device::{Beside, address, unfilled};
use crate::kernels::timing::communication;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};
use candle_core::{CudaDevice, Device, Error, Result, Tensor, bail};
use communicator::{Communicator, ID_BYTES, Numbers, Operation, Work};
use point_to_point::{Incoming, Outgoing};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{slice, thread};

/// NCCL's version, such as 22809; none where it is not there.
pub(super) fn version() -> Option<i64> {
    Communicator::version().map(i64::from)
}

/// All communicators of the process, ended together: when a rank has failed, or at the end.
#[derive(Debug, Default)]
pub(super) struct Communicators(Mutex<Vec<Arc<Communicator>>>);

impl Communicators {
    /// Ends everything that waits, on the devices too; waits for whoever is about it.
    pub(super) fn give_up(&self) {
        // All at once: NCCL ends one only when its device lets it, which may wait for another's work.
        let all = locked(&self.0);
        thread::scope(|scope| {
            for communicator in all.iter() {
                let give_up = || communicator.give_up();
                if thread::Builder::new().spawn_scoped(scope, give_up).is_err() {
                    give_up();
                }
            }
        });
    }

    /// Waits until all that was begun is done.
    pub(super) fn settle(&self) {
        // The lock is not kept: whoever ends them would wait for it.
        let all = locked(&self.0).clone();
        for communicator in all {
            // A failure here has been told by whoever waited for a result.
            let _ = communicator.settle();
        }
    }

    fn add(&self, communicator: Communicator) -> Arc<Communicator> {
        let communicator = Arc::new(communicator);
        locked(&self.0).push(communicator.clone());
        communicator
    }
}

impl Drop for Communicators {
    fn drop(&mut self) {
        // All devices first: a peer may still read what this end has to offer. (Those of other nodes
        // have met before, see `ranks`.)
        self.settle();
        // Nothing is under way any more, so nothing is cut short.
        self.give_up();
    }
}

/// One rank's communicators in one group.
#[derive(Debug, Default)]
pub(super) struct GpuEnd {
    all: Mutex<Option<Arc<Communicator>>>,
    /// The end of what was last put into the stream of the group's own.
    last: Mutex<Option<Arc<CudaEvent>>>,
    outgoing: Mutex<BTreeMap<Channel, Outgoing>>,
    incoming: Mutex<BTreeMap<Channel, Incoming>>,
}

/// A collective under way in another stream than that of the kernels.
struct Flight {
    kernels: Arc<CudaStream>,
    /// One event of all that were started together.
    done: Option<Arc<CudaEvent>>,
    /// Only of tensor ranks: beside replicas' sums, most of which run beside attention, products were
    /// faster with all multiprocessors.
    _beside: Option<Beside>,
    /// Read and written until then.
    kept: [Tensor; 2],
}

impl Flight {
    /// Lets the kernels' stream wait for it.
    fn land(mut self) -> Result<()> {
        let Some(done) = &self.done else { return Ok(()) };
        let wait = || self.kernels.wait(done).map_err(Error::wrap);
        communication(self.kept[0].device(), wait)?;
        self.done = None;
        Ok(())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Memory is given back in the kernels' stream: not before the collective is done, even if nobody
        // asks for its result. A failure shows at the stream's next use.
        if let Some(done) = &self.done {
            let _ = self.kernels.wait(done);
        }
    }
}

impl GpuEnd {
    /// [`Group::start`] for a contiguous tensor on a GPU.
    pub(super) fn start(
        &self,
        group: &ThreadGroup,
        collective: Collective,
        x: &Tensor,
    ) -> Result<Pending> {
        Ok(self.start_all(group, collective, slice::from_ref(x))?.remove(0))
    }

    /// [`Group::start_all`] for contiguous tensors on one GPU.
    pub(super) fn start_all(
        &self,
        group: &ThreadGroup,
        collective: Collective,
        xs: &[Tensor],
    ) -> Result<Vec<Pending>> {
        let Some(device) = xs.first().map(Tensor::device) else { return Ok(Vec::new()) };
        let communicator = self.communicator(group, device)?;
        let (own, kernels) = (communicator.stream(), communicator.kernels());
        let planned = xs.iter().map(|x| plan(group, collective, x));
        let (results, works): (Vec<_>, Vec<_>) =
            planned.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        own.join(kernels).map_err(Error::wrap)?;
        let begun = communicator.run(&works, own, &|| group.hub.goes_on());
        let done = begun.and_then(|()| own.record_event(None).map_err(Error::wrap));
        let done = Arc::new(communicator.or_settled(done)?);
        *locked(&self.last) = Some(done.clone());
        let pending = |(x, result): (&Tensor, Tensor)| {
            let flight = Flight {
                kernels: kernels.clone(),
                done: Some(done.clone()),
                _beside: (group.kind == GroupKind::Tensor).then(Beside::begin),
                kept: [x.clone(), result.clone()],
            };
            Pending::new(move || {
                flight.land()?;
                Ok(result)
            })
        };
        Ok(xs.iter().zip(results).map(pending).collect())
    }

    /// [`Group::carry_out`] for a contiguous tensor on a GPU.
    pub(super) fn carry_out(
        &self,
        group: &ThreadGroup,
        collective: Collective,
        x: &Tensor,
    ) -> Result<Tensor> {
        let communicator = self.communicator(group, x.device())?;
        let (result, work) = plan(group, collective, x)?;
        communication(x.device(), || {
            if let Some(last) = locked(&self.last).take() {
                communicator.kernels().wait(&last).map_err(Error::wrap)?;
            }
            communicator.run(&[work], communicator.kernels(), &|| group.hub.goes_on())
        })?;
        Ok(result)
    }

    /// [`Group::open`] for a GPU.
    pub(super) fn open(&self, group: &ThreadGroup, device: &Device) -> Result<()> {
        self.communicator(group, device).map(|_| ())
    }

    /// The part of one route in [`Group::connect`], for a GPU; nothing where this rank is not on it,
    /// or it is connected.
    pub(super) fn connect(
        &self,
        group: &ThreadGroup,
        device: &Device,
        channel: Channel,
    ) -> Result<()> {
        let (hub, own) = (&group.hub, group.rank_in_run());
        let (mut outgoing, mut incoming) = (locked(&self.outgoing), locked(&self.incoming));
        if channel.from == own && !outgoing.contains_key(&channel) {
            outgoing.insert(channel, Outgoing::open(hub, channel, device)?);
        } else if channel.to == own && !incoming.contains_key(&channel) {
            incoming.insert(channel, Incoming::open(hub, channel, device)?);
        }
        Ok(())
    }

    /// [`Group::send`] for a tensor on a GPU.
    pub(super) fn send(&self, hub: &Hub, x: &Tensor, channel: Channel) -> Result<()> {
        match locked(&self.outgoing).get_mut(&channel) {
            Some(outgoing) => outgoing.send(hub, x.contiguous()?),
            None => bail!("{channel:?} is not connected (a bug of this program)"),
        }
    }

    /// [`Group::receive`] on a GPU.
    pub(super) fn receive(&self, hub: &Hub, like: &Like, channel: Channel) -> Result<Tensor> {
        match locked(&self.incoming).get(&channel) {
            Some(incoming) => incoming.receive(hub, like),
            None => bail!("{channel:?} is not connected (a bug of this program)"),
        }
    }

    /// The communicator of all ranks of the group; made when it is first asked for.
    fn communicator(&self, group: &ThreadGroup, device: &Device) -> Result<Arc<Communicator>> {
        let mut all = locked(&self.all);
        if let Some(communicator) = &*all {
            return Ok(communicator.clone());
        }
        let id = if group.rank() == 0 { Communicator::new_id()? } else { [0; ID_BYTES] };
        let id = group.broadcast(&Tensor::new(&id, &Device::Cpu)?, 0)?;
        let communicator = open(&group.hub, &id, (group.rank(), group.size()), device)?;
        *all = Some(communicator.clone());
        Ok(communicator)
    }
}

/// What `collective` gives, and how NCCL makes it.
fn plan(group: &ThreadGroup, collective: Collective, x: &Tensor) -> Result<(Tensor, Work)> {
    let (rank, ranks, count) = (group.rank(), group.size(), x.elem_count());
    let (from, piece) = (address(x)?, count / ranks);
    let own = from + (rank * piece * x.dtype().size_in_bytes()) as u64;
    let fresh = |rows: usize| {
        let mut shape = x.dims().to_vec();
        if let Some(first) = shape.first_mut() {
            *first = rows;
        }
        unfilled(shape, x.dtype(), x.device())
    };
    let rows = x.dims().first().copied().unwrap_or(1);
    let (result, operation, [from, to], count) = match collective {
        Collective::AllReduce(by) => {
            let y = fresh(rows)?;
            let to = address(&y)?;
            (y, Operation::AllReduce(by), [from, to], count)
        }
        Collective::AllReduceInPlace(by) => {
            (x.clone(), Operation::AllReduce(by), [from, from], count)
        }
        Collective::AllGather => {
            let y = fresh(rows * ranks)?;
            let to = address(&y)?;
            (y, Operation::AllGather, [from, to], count)
        }
        Collective::AllGatherInPlace => (x.clone(), Operation::AllGather, [own, from], piece),
        Collective::ReduceScatter => {
            let y = fresh(rows / ranks)?;
            let to = address(&y)?;
            (y, Operation::ReduceScatter, [from, to], piece)
        }
        Collective::ReduceScatterInPlace => {
            (x.clone(), Operation::ReduceScatter, [from, own], piece)
        }
        Collective::Broadcast { root } => {
            let y = fresh(rows)?;
            let to = address(&y)?;
            (y, Operation::Broadcast { root }, [from, to], count)
        }
    };
    Ok((result, (operation, Numbers { from, to, count, dtype: x.dtype() })))
}

fn open(
    hub: &Hub,
    id: &Tensor,
    place: (usize, usize),
    device: &Device,
) -> Result<Arc<Communicator>> {
    let Ok(id) = <[u8; ID_BYTES]>::try_from(id.to_vec1::<u8>()?) else {
        bail!("a communicator's id has {ID_BYTES} bytes, not {:?}", id.shape())
    };
    let streams = [own_stream(device)?, cuda(device)?.cuda_stream()];
    let communicator = Communicator::open(id, place, streams, &|| hub.goes_on())?;
    let communicator = hub.communicators.add(communicator);
    // A rank that has failed before this one was listed did not end it.
    hub.goes_on().inspect_err(|_| communicator.give_up())?;
    Ok(communicator)
}

fn cuda(device: &Device) -> Result<&CudaDevice> {
    match device {
        Device::Cuda(cuda) => Ok(cuda),
        other => bail!("{other:?} is not a GPU"),
    }
}

/// A stream whose work begins before that of the kernels where both could: the peers wait for it.
fn own_stream(device: &Device) -> Result<Arc<CudaStream>> {
    /// The driver takes the nearest that the device has.
    const URGENT: i32 = -5;
    let stream = cuda(device)?.cuda_stream();
    stream.context().new_stream_with_priority(URGENT).map_err(Error::wrap)
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
