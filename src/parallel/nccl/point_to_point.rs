//! Point-to-point messages between GPUs: a communicator of two ranks for each channel, and a thread
//! that sends.
//!
//! The thread waits for the receiver, so that whoever sends does not.

use super::communicator::{Communicator, Numbers, Operation};
use super::{cuda, open, own_stream};
use crate::kernels::device::{address, unfilled};
use crate::parallel::group::Like;
use crate::parallel::threads::{Channel, Hub};
use candle_core::cuda_backend::cudarc::driver::CudaEvent;
use candle_core::{Device, Error, Result, Tensor, bail};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;

/// Messages that wait to be sent before the sender waits too: each keeps its memory.
const AHEAD: usize = 8;

/// The two ranks of a channel's communicator.
const SENDER: usize = 0;
const RECEIVER: usize = 1;

/// The sender's end of a channel.
#[derive(Debug)]
pub(super) struct Outgoing {
    messages: SyncSender<Sent>,
}

/// A message that is there when the kernels have come to the event.
struct Sent {
    written: CudaEvent,
    x: Tensor,
}

impl Outgoing {
    /// A new channel, whose receiver finds it by a message on the host.
    pub(super) fn open(hub: &Arc<Hub>, channel: Channel, device: &Device) -> Result<Outgoing> {
        let id = Tensor::new(&Communicator::new_id()?, &Device::Cpu)?;
        hub.post(channel, &id)?;
        let (sender, messages) = sync_channel(AHEAD);
        let (hub, device) = (Arc::downgrade(hub), device.clone());
        let work = move || {
            if let Err(error) = deliver(&hub, &id, &device, &messages)
                && let Some(hub) = hub.upgrade()
            {
                hub.give_up(format!("a tensor cannot be sent: {error}"));
            }
        };
        thread::Builder::new().name("messages".to_owned()).spawn(work).map_err(Error::wrap)?;
        Ok(Outgoing { messages: sender })
    }

    /// Sends a contiguous tensor once the kernels that write it have run.
    pub(super) fn send(&self, x: Tensor) -> Result<()> {
        let kernels = cuda(x.device())?.cuda_stream();
        let written = kernels.record_event(None).map_err(Error::wrap)?;
        match self.messages.send(Sent { written, x }) {
            Ok(()) => Ok(()),
            Err(_) => bail!("given up: the channel to the receiver is closed"),
        }
    }
}

/// Sends messages until there are no more.
fn deliver(hub: &Weak<Hub>, id: &Tensor, device: &Device, messages: &Receiver<Sent>) -> Result<()> {
    let goes_on = || match hub.upgrade() {
        Some(hub) => hub.goes_on(),
        None => bail!("given up: the ranks have ended"),
    };
    let Some(meeting) = hub.upgrade() else { return Ok(()) };
    let communicator = open(&meeting, id, (SENDER, 2), own_stream(device)?)?;
    // The ranks may end while this thread waits for a message.
    drop(meeting);
    let stream = communicator.stream();
    for Sent { written, x } in messages {
        stream.wait(&written).map_err(Error::wrap)?;
        communicator.run(Operation::Send { peer: RECEIVER }, numbers(&x)?, &goes_on)?;
        // Its memory goes back to the kernels' stream.
        stream.synchronize().map_err(Error::wrap)?;
        drop(x);
    }
    Ok(())
}

/// The receiver's end of a channel; waits for its sender.
pub(super) fn incoming(hub: &Hub, channel: Channel, device: &Device) -> Result<Arc<Communicator>> {
    let id = hub.fetch(channel)?;
    open(hub, &id, (RECEIVER, 2), own_stream(device)?)
}

/// The next message of a channel, there for whatever is put into the kernels' stream from now on.
pub(super) fn receive(hub: &Hub, communicator: &Communicator, like: &Like) -> Result<Tensor> {
    let (stream, kernels) = (communicator.stream(), cuda(&like.device)?.cuda_stream());
    let x = unfilled(like.shape.clone(), like.dtype, &like.device)?;
    // Whoever had this memory before is done with it when the kernels come here.
    stream.join(&kernels).map_err(Error::wrap)?;
    communicator.run(Operation::Receive { peer: SENDER }, numbers(&x)?, &|| hub.goes_on())?;
    kernels.join(stream).map_err(Error::wrap)?;
    Ok(x)
}

fn numbers(x: &Tensor) -> Result<Numbers> {
    let at = address(x)?;
    Ok(Numbers { from: at, to: at, count: x.elem_count(), dtype: x.dtype() })
}
