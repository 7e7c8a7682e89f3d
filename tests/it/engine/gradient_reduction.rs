//! The calls by which replicas add up their gradients: the same ones, whatever each has to learn.

use super::layouts::gpt_8;
use candle_core::{Result, Tensor, bail};
use sft_run::engine::gradient_reduction::GradientReduction;
use sft_run::layout::parameters::Place;
use sft_run::model::trunk::Milestone;
use sft_run::model::weights::{Weights, start_values};
use sft_run::parallel::group::{Collective, Group, Like, Pending};
use sft_run::parallel::mesh::Mesh;
use std::sync::{Arc, Mutex};

/// One of two replicas, which notes where the tensors of each call begin and adds up nothing.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<Vec<usize>>>);

impl Group for Notes {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        2
    }

    fn start(&self, collective: Collective, x: &Tensor) -> Result<Pending> {
        Ok(self.start_all(collective, std::slice::from_ref(x))?.remove(0))
    }

    fn start_all(&self, _: Collective, xs: &[Tensor]) -> Result<Vec<Pending>> {
        self.0.lock().unwrap().push(xs.iter().map(|x| x.layout().start_offset()).collect());
        Ok(xs.iter().map(|x| Pending::ready(x.clone())).collect())
    }

    fn send(&self, _: &Tensor, _: usize, _: u64) -> Result<()> {
        bail!("replicas send nothing")
    }

    fn receive(&self, _: &Like, _: usize, _: u64) -> Result<Tensor> {
        bail!("replicas receive nothing")
    }
}

/// The calls of a step whose backward reaches `milestones`; how many of them before it was over.
fn calls(milestones: &[Milestone], distributed: bool, tied: bool) -> (Vec<Vec<usize>>, usize) {
    let (architecture, notes) = (gpt_8(), Arc::new(Notes::default()));
    let mut mesh = Mesh { data: notes.clone(), ..Mesh::single() };
    mesh.degrees.data = 2;
    if tied {
        mesh.embedding = Some(Arc::new(Notes::default()));
    }
    let weights = Weights::new::<f32>(&architecture, start_values(&architecture, 3)).unwrap();
    let mut reduction = GradientReduction::with_buckets(&mesh, &weights, distributed, 500);
    reduction.begin();
    for milestone in milestones {
        reduction.reached(*milestone, &weights).unwrap();
    }
    let early = notes.0.lock().unwrap().len();
    reduction.begin_rest(&weights).unwrap();
    reduction.land(&(0..usize::MAX)).unwrap();
    let all = notes.0.lock().unwrap().clone();
    (all, early)
}

#[test]
fn a_replica_that_learns_nothing_makes_the_same_calls() {
    let layer = |layer| [Milestone::Attention, Milestone::Finished(Place::Layer(layer))];
    let blocks = (0..8).rev().flat_map(layer);
    let backward: Vec<_> = std::iter::once(Milestone::Finished(Place::Head))
        .chain(blocks)
        .chain([Milestone::Finished(Place::Embedding)])
        .collect();
    for (distributed, tied) in [(true, false), (false, false), (true, true)] {
        let (learning, early) = calls(&backward, distributed, tied);
        let (idle, none) = calls(&[], distributed, tied);
        assert_eq!(learning, idle);
        assert_eq!(none, 0);
        assert!(
            early > 6 && learning.len() > early,
            "{early} of {} before the end",
            learning.len()
        );
        let begun: Vec<usize> = learning.concat();
        assert!(begun.is_sorted_by(|a, b| a > b), "from the end of the buffer: {begun:?}");
        assert!(learning.iter().any(|call| call.len() > 1), "some begin together");
    }
}
