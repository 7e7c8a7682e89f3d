//! Point-to-point messages between GPUs: a communicator of two ranks for each channel.

use super::communicator::{Communicator, Numbers, Operation};
use super::{cuda, open};
use crate::kernels::device::{address, unfilled};
use crate::kernels::timing::communication;
use crate::parallel::group::Like;
use crate::parallel::threads::{Channel, Hub};
use candle_core::cuda_backend::cudarc::driver::CudaEvent;
use candle_core::{DType, Device, Error, Result, Tensor};
use std::collections::VecDeque;
use std::sync::Arc;

/// Messages under way before the sender waits: each keeps its memory.
const AHEAD: usize = 8;

/// The two ranks of a channel's communicator.
const SENDER: usize = 0;
const RECEIVER: usize = 1;

/// The sender's end of a channel.
#[derive(Debug)]
pub(super) struct Outgoing {
    communicator: Arc<Communicator>,
    /// Messages that may be under way, oldest first.
    sent: VecDeque<Sent>,
}

/// A message that has left when its stream has come to the event.
#[derive(Debug)]
struct Sent {
    left: CudaEvent,
    x: Tensor,
}

impl Outgoing {
    /// A new channel; waits for its receiver.
    pub(super) fn open(hub: &Hub, channel: Channel, device: &Device) -> Result<Outgoing> {
        let id = Tensor::new(&Communicator::new_id()?, &Device::Cpu)?;
        hub.post(channel, &id)?;
        let communicator = open(hub, &id, (SENDER, 2), device)?;
        greet(hub, &communicator, device, Operation::Send { peer: RECEIVER })?;
        Ok(Outgoing { communicator, sent: VecDeque::new() })
    }

    /// Sends a contiguous tensor once the kernels that write it have run.
    pub(super) fn send(&mut self, hub: &Hub, x: Tensor) -> Result<()> {
        let stream = self.communicator.stream();
        stream.join(self.communicator.kernels()).map_err(Error::wrap)?;
        let send = Operation::Send { peer: RECEIVER };
        let begun = self.communicator.run(&[(send, numbers(&x)?)], stream, &|| hub.goes_on());
        self.communicator.or_settled(begun)?;
        let left = stream.record_event(None).map_err(Error::wrap)?;
        self.sent.push_back(Sent { left, x });
        while let Some(Sent { left, .. }) = self.sent.front() {
            if self.sent.len() > AHEAD {
                left.synchronize().map_err(Error::wrap)?;
            } else if !left.is_complete() {
                break;
            }
            self.sent.pop_front();
        }
        Ok(())
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Memory is given back in the kernels' stream: not before the message has left. A failure
        // shows at the stream's next use.
        for Sent { left, x } in &self.sent {
            if let Ok(device) = cuda(x.device()) {
                let _ = device.cuda_stream().wait(left);
            }
        }
    }
}

/// The receiver's end of a channel.
#[derive(Debug)]
pub(super) struct Incoming {
    communicator: Arc<Communicator>,
}

impl Incoming {
    /// The end of a new channel; waits for its sender.
    pub(super) fn open(hub: &Hub, channel: Channel, device: &Device) -> Result<Incoming> {
        let id = hub.fetch(channel)?;
        let communicator = open(hub, &id, (RECEIVER, 2), device)?;
        greet(hub, &communicator, device, Operation::Receive { peer: SENDER })?;
        Ok(Incoming { communicator })
    }

    /// The next message, there for whatever is put into the kernels' stream from now on.
    pub(super) fn receive(&self, hub: &Hub, like: &Like) -> Result<Tensor> {
        let (stream, kernels) = (self.communicator.stream(), self.communicator.kernels());
        let x = unfilled(like.shape.clone(), like.dtype, &like.device)?;
        // Whoever had this memory before is done with it when the kernels come here.
        stream.join(kernels).map_err(Error::wrap)?;
        let receive = Operation::Receive { peer: SENDER };
        let begun = self.communicator.run(&[(receive, numbers(&x)?)], stream, &|| hub.goes_on());
        self.communicator.or_settled(begun)?;
        communication(&like.device, || kernels.join(stream).map_err(Error::wrap))?;
        Ok(x)
    }
}

/// A first message, since NCCL makes the connections of a communicator only then.
fn greet(hub: &Hub, communicator: &Communicator, device: &Device, with: Operation) -> Result<()> {
    let x = unfilled(1, DType::F32, device)?;
    let (stream, kernels) = (communicator.stream(), communicator.kernels());
    stream.join(kernels).map_err(Error::wrap)?;
    communicator.run(&[(with, numbers(&x)?)], stream, &|| hub.goes_on())?;
    kernels.join(stream).map_err(Error::wrap)
}

fn numbers(x: &Tensor) -> Result<Numbers> {
    let at = address(x)?;
    Ok(Numbers { from: at, to: at, count: x.elem_count(), dtype: x.dtype() })
}
