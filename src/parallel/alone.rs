//! The group of a rank that shares nothing with others.

use super::group::{Collective, Group, Like, Pending};
use candle_core::{Result, Tensor, bail};

/// A group of one: every collective gives what it was given.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Group for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn start(&self, collective: Collective, x: &Tensor) -> Result<Pending> {
        if let Collective::Broadcast { root } = collective
            && root > 0
        {
            bail!("rank {root} is not in a group of one")
        }
        Ok(Pending::ready(x.clone()))
    }

    fn send(&self, _: &Tensor, to: usize, _: u64) -> Result<()> {
        bail!("a rank alone has nobody to send to, nor a rank {to}")
    }

    fn receive(&self, _: &Like, from: usize, _: u64) -> Result<Tensor> {
        bail!("a rank alone has nobody to receive from, nor a rank {from}")
    }
}
